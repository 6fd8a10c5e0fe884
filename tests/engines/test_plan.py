"""The memory plan: its terms are the bytes that engines hold, and its advice fits."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from fastrec import optim
from fastrec.cli.main import main
from fastrec.engines.minibatch.exchange import by_rows
from fastrec.engines.plan import FREE, GB, STATE, Plan
from fastrec.errors import ConfigError
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, N_USERS, make_engine

BIG = Plan(100_000_000, 10_000_000, 64, 10**9, gpus=8, precision="bf16", memory=1000 * GB)


def parts(plan: Plan) -> dict[tuple[str, str], float]:
    return {(p.name, p.where): p.n_bytes for p in plan.parts()}


@pytest.mark.parametrize("name", sorted(STATE))
def test_weights_gradients_and_state_are_what_an_engine_holds(name: str) -> None:
    engine = make_engine("gmf", optimizer=name)
    engine.advance(Cursor(0, 0), 1)
    found = parts(Plan(N_USERS, N_ITEMS, 4, 100, optimizer=name))
    tables = [engine.model.user_factors, engine.model.item_factors]
    state = [v for p in tables for key, v in engine.optimizer.state[p].items() if key != "step"]
    assert found["weights", "device"] == sum(p.nbytes for p in tables)
    assert found["gradients", "device"] == sum(p.grad.nbytes for p in tables)
    assert found.get(("optimiser state", "device"), 0) == sum(v.nbytes for v in state)
    engine.close()


def test_every_optimiser_has_its_terms() -> None:
    assert set(STATE) == set(optim.names())


@pytest.mark.parametrize("batch_size", [1024, 65_536, 10_000_000])
def test_the_exchange_goes_as_the_engine_chooses(batch_size: int) -> None:
    plan = Plan(60_400, 3_706, 64, 10**6, processes=4, batch_size=batch_size)
    said = next((p.formula for p in plan.parts() if p.name == "exchange"), "users dense, items dense")
    own = batch_size // 4
    for name, rows, columns in (("users", plan.users, 1), ("items", plan.items, 5)):
        way = "by rows" if by_rows(4, min(rows, own * columns), rows, 64) else "dense"
        assert f"{name} {way}" in said


def test_more_than_a_gpu_holds_gets_advice_that_fits() -> None:
    assert BIG.device_bytes() == pytest.approx(
        (28.16 + 28.16 + 56.32 + 14.08 + 1) * GB + parts(BIG)["exchange", "device"]
    )
    assert not BIG.fits()
    assert replace(BIG, optimizer="sgd").fits()
    assert replace(BIG, dim=32).fits()
    said = BIG.advice()
    assert said[0] == "a GPU of 80 GB does not hold 127.8 GB"
    assert "--dim 64 --optimizer sgd" in said[1]
    assert "--dim 32 --optimizer adam" in said[2]
    for plan in (replace(BIG, optimizer="sgd"), replace(BIG, dim=32)):
        assert plan.advice() == ["fits: " + plan.command()]
        assert plan.device_bytes() <= FREE * plan.gpu_memory


def test_what_no_option_saves_says_what_would() -> None:
    said = replace(BIG, users=2_000_000_000).advice()
    assert "tables divided over 8 processes would take" in said[-1]
    short = replace(BIG, optimizer="sgd", memory=64 * GB)
    need = f"{short.machine_bytes() / FREE / GB:,.0f} GB"
    said = f"a machine of 64 GB does not hold {short.machine_bytes() / GB:,.1f} GB: take machines of {need}"
    assert short.advice() == [f"{said} or fewer processes on each"]
    assert replace(short, hosts=8).machine_bytes() * 8 == short.machine_bytes()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"users": 2**31}, r"users = 2,147,483,648: must be at most"),
        ({"dim": 0}, "dim = 0: must be at least 1"),
        ({"hosts": 3}, "8 processes cannot be divided evenly"),
        ({"batch_size": 4}, "batch_size = 4: fewer positives than 8 processes"),
        ({"optimizer": "adamm"}, "optimizer = 'adamm': must be one of"),
        ({"precision": "int8"}, "precision = 'int8': must be"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        replace(BIG, **change)  # type: ignore[arg-type]


def test_the_command_prints_the_plan_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    command = "plan --users 1e8 --items 1e7 --dim 64 --gpus 8 --memory 1000"
    assert main(shlex.split(command)) == 0
    out = capsys.readouterr().out
    assert "4 D (U + I)" in out
    assert "note: assumed: 10 positives for each user; give --positives" in out
    assert main([*shlex.split(command), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device_bytes"] == BIG.device_bytes()
    assert found["advice"] == BIG.advice()
    assert found["fits"] is False


@pytest.mark.parametrize("text", ["1.5", "-1", "many", "nan", "inf"])
def test_a_count_is_an_integer(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", f"--users={text}", "--items", "10"])
    assert end.value.code == 2
    assert "write 100000000 or 1e8" in capsys.readouterr().err
