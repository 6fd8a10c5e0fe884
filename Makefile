# fastrec: `make train` and `make test` do all the set-up by themselves.
.DEFAULT_GOAL := help
.PHONY: help train test test-all lint learn torture bench bench-baselines docs package test-lowest clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATA   ?=
ARGS   ?=
SEED   ?= 0
HOURS  ?=

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo 'Options: make train DATA=path-or-name ARGS="--epochs 20 --dim 64"; PYTHON=python3.12 picks the interpreter.'

# A stamp per install: re-made only when what it was made from changes.
$(VENV)/.base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing fastrec (pinned in constraints.txt)"
	@$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "installing what the tests need"
	@$(PIP) -e '.[dev]'
	@touch $@

train: $(VENV)/.base  ## train GMF on MovieLens-1M, evaluate, print the closing table
	@$(BIN)/python -m fastrec train $(if $(DATA),--data "$(DATA)") --synthetic-if-missing $(ARGS)

test: $(VENV)/.dev  ## run the tests, one worker per processor
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

test-all: export FASTREC_TESTS = all
test-all: test  ## run the slow tests too: every damaged byte, every combination of options

lint: $(VENV)/.dev  ## ruff (style, imports, bugs) and mypy (types)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

learn: $(VENV)/.base  ## train every model, loss, optimiser and engine at its defaults, next to popularity
	@$(BIN)/python scripts/learn.py --out benchmarks/learn.md $(ARGS)

torture: $(VENV)/.dev  ## faults, lost power, hostile input, flipped bits, threads, a killed run: a sample by SEED, or HOURS=2 for all
	@$(BIN)/python -m scripts.torture --seed $(SEED) $(if $(HOURS),--hours $(HOURS)) $(ARGS)

bench: $(VENV)/.dev  ## time every case, save the run in .benchmarks/, compare it with the last one
	@$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-autosave --benchmark-compare $(ARGS)

bench-baselines: $(VENV)/.base .venv-baselines/.done  ## LensKit, implicit and Cornac into .venv-baselines, then train with every engine and them in turn
	@$(BIN)/python -m fastrec.bench --case end_to_end $(ARGS)

.venv-baselines/.done: benchmarks/baselines-constraints.txt
	@test -x .venv-baselines/bin/python || $(PYTHON) -m venv .venv-baselines
	@echo "installing the baselines (pinned in $<)"
	@.venv-baselines/bin/python -m pip install --quiet --disable-pip-version-check -c $< lenskit implicit cornac torch
	@touch $@

docs: $(VENV)/.base  ## the pages of docs/ as a site in site/, and the options page from Config
	@$(PIP) -e '.[docs]'
	@$(BIN)/python scripts/make_options_page.py
	@$(BIN)/mkdocs build --quiet

package: $(VENV)/.base  ## build wheel and sdist, check them, try each install in an environment of its own
	@$(BIN)/python scripts/check_package.py

test-lowest: $(VENV)/.base  ## the tests of sampler, data, models and runs with the lowest declared versions
	@$(BIN)/python scripts/check_package.py --lowest

clean:  ## remove the environment and the caches
	rm -rf $(VENV) .venv-baselines .numba_cache .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
