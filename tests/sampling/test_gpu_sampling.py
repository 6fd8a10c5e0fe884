"""The Triton twin equals the host sampler byte for byte: under the interpreter, compiled for sm_90, and on hardware."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton is not installed")
torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]


def compare(device: str, n_users: int, n_rows: int) -> int:
    """Compare every path on ``device``; returns how many negatives were compared."""
    from fastrec.sampling import NegativeSampler, identity
    from fastrec.sampling.order import Order
    from fastrec.sampling.triton_twin import GpuOrder, GpuSampler, GpuStream

    rng, compared = np.random.default_rng(5), 0
    n = 37
    rows = [np.sort(rng.choice(n, k, replace=False)) for k in (0, n, n - 1, 1, *rng.integers(0, n, n_users - 4))]
    indptr, items = np.cumsum([0] + [len(r) for r in rows]), np.concatenate(rows)
    users = rng.integers(0, n_users, n_rows).astype(np.int32)
    positions = rng.integers(0, 2**40, n_rows)
    for n_negatives, seed, epoch, budget in ((4, 2**32 - 1, 0, 2**20), (1, 0, 2**32 - 1, 0), (6, 1, 7, 0)):
        host = NegativeSampler(
            indptr, items, n_items=n, n_negatives=n_negatives, seed=seed, on_full="skip", memory_budget=budget
        )
        twin = GpuSampler(host, device)
        args = torch.as_tensor(users, device=device), epoch, torch.as_tensor(positions, device=device)
        expected = host.sample(users, epoch=epoch, positions=positions)
        assert np.array_equal(twin.sample(*args).cpu().numpy(), expected)
        assert host.stats["exact_finishes"] > 0
        assert host.stats["skipped"] > 0
        compared += expected.size
    for size in (1, 17, 600, 4999):
        order = Order(size, 2**32 - 1)
        found = GpuOrder(order, device).positions(2**32 - 1, size // 3, size).cpu().numpy()
        assert np.array_equal(found, order.positions(2**32 - 1, size // 3, size))
    some, kept = rows[2:], np.concatenate(rows[2:]).astype(np.int32)
    indptr = np.cumsum([0] + [len(r) for r in some])
    host = NegativeSampler(indptr, kept, n_items=n, seed=3)
    users_b, items_b, positions_b = GpuStream(indptr, kept, host, 8, device).batch(2, 5, kept.size)
    at = Order(kept.size, 8).positions(2, 5, kept.size)
    owners = np.repeat(np.arange(len(some), dtype=np.int32), np.diff(indptr))[at]
    positions = identity(owners, kept[at])
    assert np.array_equal(positions_b.cpu().numpy(), positions)
    assert np.array_equal(users_b.cpu().numpy(), owners)
    assert np.array_equal(items_b[:, 0].cpu().numpy(), kept[at])
    assert np.array_equal(items_b[:, 1:].cpu().numpy(), host.sample(owners, epoch=2, positions=positions))
    return compared


def compare_general(device: str, n: int, n_users: int, n_rows: int) -> int:
    """The same for weighted items, distinct slots, and both, by bitmap and by search; returns how many."""
    from fastrec.sampling import NegativeSampler
    from fastrec.sampling.triton_twin import GpuSampler

    rng, compared, finishes, skipped = np.random.default_rng(8), 0, 0, 0
    rows = [np.sort(rng.choice(n, k, replace=False)) for k in (0, n, n - 3, 1, n - 1, *rng.integers(0, n, n_users - 5))]
    indptr, items = np.cumsum([0] + [len(r) for r in rows]), np.concatenate(rows)
    users = rng.integers(0, n_users, n_rows).astype(np.int32)
    positions = rng.integers(0, 2**62, n_rows)
    weights = np.where(rng.random(n) < 0.3, 0.0, rng.random(n) * 9 + 1e-3)
    weights[0] = 1e6
    for options, n_negatives, epoch, budget in (
        ({"distinct": True}, 3, 2**32 - 1, 2**20),
        ({"distinct": True}, 5, 0, 0),
        ({"distribution": "popularity"}, 4, 3, 2**20),
        ({"distribution": "popularity", "alpha": 0.0}, 1, 3, 0),
        ({"distribution": "weights", "weights": weights}, 3, 9, 0),
        ({"distribution": "weights", "weights": weights, "distinct": True}, 3, 1, 2**20),
        ({"distribution": "weights", "weights": weights, "distinct": True}, 2, 1, 0),
    ):
        host = NegativeSampler(
            indptr, items, n_items=n, n_negatives=n_negatives, seed=2**32 - 1, on_full="skip", memory_budget=budget,
            **options,
        )  # fmt: skip
        out = torch.full((n_rows, n_negatives + 1), -7, dtype=torch.int32, device=device)
        args = torch.as_tensor(users, device=device), epoch, torch.as_tensor(positions, device=device)
        GpuSampler(host, device).sample(*args, out[:, 1:])
        expected = host.sample(users, epoch=epoch, positions=positions)
        assert np.array_equal(out[:, 1:].cpu().numpy(), expected), options
        assert (out[:, 0] == -7).all()
        finishes, skipped = finishes + host.stats["exact_finishes"], skipped + host.stats["skipped"]
        compared += expected.size
    assert finishes
    assert skipped
    return compared


def test_general_twin_equals_host_under_the_interpreter() -> None:
    code = "import tests.sampling.test_gpu_sampling as t; print(t.compare_general('cpu', 13, 9, 40))"
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 40 * (3 + 5 + 4 + 1 + 3 + 3 + 2)


def test_twin_equals_host_under_the_interpreter() -> None:
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    code = "import tests.sampling.test_gpu_sampling as t; print(t.compare('cpu', 12, 300))"
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 300 * (4 + 1 + 6)


SAMPLE = {
    "indptr": "*i64", "items": "*i32", "bits": "*i32", "users": "*i32", "positions": "*i64", "epoch_at": "*i64",
    "out": "*i32", "n_rows": "i32", "n_slots": "i32", "stride": "i32", "n_items": "i32", "row_words": "i32",
    "seed": "i64", "tag": "i32",
}  # fmt: skip
GENERAL = {
    **{name: SAMPLE[name] for name in ("indptr", "items", "bits", "users", "positions", "epoch_at", "out")},
    "cut": "*i64", "alias": "*i32", "of_items": "*i64", "of_rows": "*i64", "unfit": "*u8",
    **{name: SAMPLE[name] for name in ("n_rows", "n_slots", "stride", "n_items", "row_words", "seed", "tag")},
}  # fmt: skip
FORM = {"ATTEMPTS": 8, "STEPS": 11, "ITEM_STEPS": 12, "SIZE": 256}
ORDER = {"keys": "*i64", "out": "*i64", "start": "i64", "count": "i32", "n": "i64", "a": "i32", "b": "i32"}


@pytest.mark.parametrize(
    ("kernel", "signature", "constants"),
    [
        ("sample_kernel", SAMPLE, {"BITMAP": True, "ATTEMPTS": 8, "STEPS": 11, "SIZE": 256}),
        ("sample_kernel", SAMPLE, {"BITMAP": False, "ATTEMPTS": 8, "STEPS": 11, "SIZE": 256}),
        ("general_kernel", GENERAL, {"WEIGHTED": True, "DISTINCT": False, "BITMAP": False, **FORM}),
        ("general_kernel", GENERAL, {"WEIGHTED": True, "DISTINCT": True, "BITMAP": True, **FORM}),
        ("general_kernel", GENERAL, {"WEIGHTED": False, "DISTINCT": True, "BITMAP": False, **FORM}),
        ("order_kernel", ORDER, {"ROUNDS": 6, "SIZE": 256}),
    ],
    ids=["bitmap", "search", "weighted", "weighted-distinct", "distinct", "order"],
)
def test_compiles_ahead_of_time_for_sm_90(kernel: str, signature: dict, constants: dict) -> None:
    import triton
    from triton.backends.compiler import GPUTarget

    from fastrec.sampling import triton_twin as gpu

    source = triton.compiler.ASTSource(
        fn=getattr(gpu, kernel),
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert ".target sm_90" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_twin_equals_host_on_hardware() -> None:
    assert compare("cuda", 500, 100_000) == 100_000 * 11
    assert compare_general("cuda", 300, 400, 20_000) == 20_000 * 21
