#!/usr/bin/env bash
# Everything that needs a CUDA device, in one command: the gpu-marked tests, then the bench cases on the device.
#
#   scripts/gpu_check.sh [LOG.safetensors]
#
# Starts from a saved Interactions file (Interactions.save), so that nothing here needs Polars; without one, a synthetic
# log of MovieLens-1M's shape is generated (and one of MovieLens-20M's, for the gpu case, in any event). Writes into
# $OUT (default gpu-check/): tests.xml, tests.txt, bench.json, bench.txt, device.txt. Needs numpy, numba, torch, triton,
# safetensors, tensorboard, tqdm and pytest. Ends with 1 if a test or a case fails, or if there is no device.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu-check}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$PWD/.numba_cache/gpu}"

"$PYTHON" scripts/gpu_setup.py device >"$OUT/device.txt" || { cat "$OUT/device.txt"; exit 1; }
cat "$OUT/device.txt"

log=${1:-}
if [ -z "$log" ]; then
    log="$OUT/synthetic-1m.safetensors"
    echo "no log given: generating synthetic-1m, NOT real data"
    "$PYTHON" scripts/gpu_setup.py log "$log" || exit 1
fi

failed=0
options=()
"$PYTHON" -c 'import pytest_benchmark, pytest_timeout' 2>/dev/null || options+=(-o "addopts=-ra --strict-markers")
"$PYTHON" -c 'import xdist' 2>/dev/null && options+=(-n 8)  # most of a test's time is Numba's and Triton's compilers
# Only the files that hold such tests: the others may import what this machine lacks.
mapfile -t files < <(grep -rlE 'mark\.gpu' tests --include='*.py')
if [ "${#files[@]}" -eq 0 ]; then
    echo "no test is marked gpu: that is a fault of this checkout"
    exit 1
fi
"$PYTHON" -m pytest -m gpu --junitxml="$OUT/tests.xml" "${options[@]}" "${files[@]}" 2>&1 | tee "$OUT/tests.txt"
[ "${PIPESTATUS[0]}" -eq 0 ] || failed=1

"$PYTHON" -m fastrec.bench --device cuda --data "$log" --json "$OUT/bench.json" \
    --case gpu step feed sampler end_to_end 2>&1 | tee "$OUT/bench.txt"
[ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
exit "$failed"
