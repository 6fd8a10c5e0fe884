"""The fused engine in Triton is the float64 reference and the CPU engine: interpreted, compiled for sm_90, on hardware.

What runs kernels is a function of the device's name: under the interpreter it runs in a process of its own, for that is
chosen when Triton is imported; on a CUDA device the same function runs as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrec.batches.device import HostDevice, open_device
from fastrec.batches.stream import Stream
from fastrec.errors import CheckpointError, ConfigError
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from fastrec.sampling.philox import TAG_ROUNDING, philox4x32
from tests.helpers.cases import THOROUGH
from tests.helpers.fused_reference import Reference
from tests.helpers.training import N_ITEMS, N_USERS, make_model, make_stream, positives
from tests.helpers.triton import assert_ran, compiled, interpret

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = pytest.importorskip("triton.language")
rounded_bf16 = pytest.importorskip("fastrec.engines.fused.gpu_steps").rounded_bf16

APART: dict[str, Any] = {"output_l2": 0.03, "output_lr": 0.3}
CASES: list[tuple[str, str, str, float, dict[str, Any]]] = [
    ("mf", "bce", "sgd", 0.003, {}), ("mf", "bce", "row-adagrad", 0.05, {}), ("mf", "bpr", "sgd", 0.003, {}),
    ("mf", "bpr", "row-adagrad", 0.05, {}), ("gmf", "bce", "sgd", 0.003, {}), ("gmf", "bce", "row-adagrad", 0.05, {}),
    ("gmf", "bce", "sgd", 0.003, APART), ("gmf", "bce", "row-adagrad", 0.05, APART),
]  # fmt: skip


def falling(step: int, lr: float = 0.05) -> float:
    return lr / (1 + 0.1 * step)


def make(device: str | HostDevice, model: str = "mf", dim: int = 20, lr: float = 0.05, **options: Any) -> Any:
    from fastrec.engines.fused.cuda import CudaEngine

    seam = open_device(device) if isinstance(device, str) else device
    stream = options.pop("stream", None) or make_stream(options.pop("n_negatives", 4))
    options = {"batch_size": 48, "l2": 0.01, **options}
    return CudaEngine(make_model(model, dim), stream, lr=lambda s: falling(s, lr), device=seam, **options)


def on_cpu(model: str = "mf", dim: int = 20, lr: float = 0.05, **options: Any) -> Any:
    from fastrec.engines.fused.engine import FusedEngine

    stream = options.pop("stream", None) or make_stream()
    options = {"batch_size": 48, "l2": 0.01, **options}
    return FusedEngine(make_model(model, dim), stream, lr=lambda s: falling(s, lr), threads=1, **options)


class Started(Reference):
    """The reference from the weights that a CUDA engine shows."""

    def __init__(self, engine: Any) -> None:
        self.w = {k: v.double().cpu().numpy().copy() for k, v in engine.named.items()}
        self.sums = {k: v.double().cpu().numpy().copy() for k, v in engine.sums.items()}
        self.moments, self.lazy_adam, self.steps, self.sgd = {}, False, 0, engine.optimizer == "sgd"
        self.loss, self.l2, self.output_l2, self.output_lr = engine.loss, engine.l2, engine.output_l2, engine.output_lr


def all_bytes(engine: Any) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in engine.state()[0].items()}


def epoch_beside_reference(engine: Any, lr: float) -> None:
    """An epoch step by step; weights, accumulators and losses are the reference's, and every row of the data moves."""
    reference, cursor = Started(engine), Cursor(0, 0)
    before = {k: v.copy() for k, v in reference.w.items()}
    while cursor.position < engine.n_positives:
        batch, _ = engine.stream.batch(cursor, engine.batch_size)
        expected = reference.step(batch.users, batch.items, falling(engine.step, lr))
        done = engine.advance(cursor, 1)
        assert done.loss_sum == pytest.approx(expected, rel=1e-5)
        assert (done.n_steps, done.n_samples) == (1, batch.items.size)
        cursor = done.cursor
    for name, value in reference.w.items():
        found = engine.named[name].cpu().numpy()
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=name)
        moved = (found != before[name]).reshape(len(found), -1).any(1)
        if name == "user_bias" and engine.loss == "bpr":
            assert not moved.any(), "BPR's pairs cancel it"
        elif name.startswith("user"):
            assert np.array_equal(np.flatnonzero(moved), np.unique(engine.stream.users_of)), name
        elif not (name == "bias" and engine.loss == "bpr"):
            assert moved.all(), name
    for name, value in reference.sums.items():
        np.testing.assert_allclose(engine.sums[name].cpu().numpy(), value, rtol=1e-4, atol=1e-9, err_msg=name)


def steps(device: str) -> None:
    """Every model, loss and optimiser equals the float64 reference; a complete advance, the CPU engine and any cuts.

    Interpreted, a step takes a second or two: GMF then always has options of h, two cases are compared with the CPU
    engine, and make test leaves out MF with BCE by SGD, whose every pair of options another case has.
    """
    brief = not device.startswith("cuda")
    interpreted = (CASES if THOROUGH else CASES[1:])[:-4] + CASES[6:]
    for model, loss, optimizer, lr, apart in interpreted if brief else CASES:
        options = {"loss": loss, "optimizer": optimizer, **apart}
        one_by_one = make(device, model, lr=lr, **options)
        epoch_beside_reference(one_by_one, lr)
        if brief and not THOROUGH and (loss, optimizer) not in (("bpr", "row-adagrad"), ("bce", "sgd")):
            continue
        host, whole = on_cpu(model, lr=lr, **options), make(device, model, lr=lr, **options)
        expected, done = host.advance(Cursor(0, 0), 100), whole.advance(Cursor(0, 0), 100)
        assert done[2:] == expected[2:]
        assert done.cursor == expected.cursor == Cursor(0, host.n_positives)
        assert done.loss_sum == pytest.approx(expected.loss_sum, rel=1e-6)
        found, theirs = whole.state()[0], host.state()[0]
        assert found.keys() == theirs.keys()
        for name, value in theirs.items():
            assert found[name].shape == value.shape
            torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6, msg=name)
        assert all_bytes(whole) == all_bytes(one_by_one)
        assert whole.describe()["feed"] == "resident"


def tiles(device: str) -> None:
    """Rows, items and users of more samples than a tile or a program holds; a dim that is not a power of two, and 1."""
    from fastrec.engines.fused import cuda

    parts, cuda.PARTS = cuda.PARTS, 2
    for model, loss, dim, n_negatives in (("gmf", "bce", 300, 4), ("mf", "bpr", 300, 17), ("mf", "bce", 1, 1)):
        engine = make(device, model, dim, 0.3, loss=loss, batch_size=100, n_negatives=n_negatives)
        epoch_beside_reference(engine, 0.3)
    cuda.PARTS = parts


def host_rounding(values: np.ndarray, row: int, step: int, seed: int) -> np.ndarray:
    """bfloat16 as int16, from the host's own Philox."""
    out = np.empty(len(values), np.int16)
    for d, value in enumerate(values):
        words = philox4x32(*map(np.uint64, (step & 0xFFFFFFFF, step >> 32, row, (d // 4) << 16, seed, TAG_ROUNDING)))
        bits = int(np.float32(value).view(np.uint32)) + (int(words[d % 4]) & 0xFFFF)
        out[d] = np.uint16(bits >> 16).astype(np.int16)
    return out


@triton.jit
def round_rows(values, out, first, seed, tag, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The same values at row r % 7 of step ``first`` + r, for each r."""
    d = tl.arange(0, SIZE)
    r = tl.program_id(0).to(tl.int64)
    rounded = rounded_bf16(tl.load(values + d), d, r % 7, tl.load(first) + r, seed, tag)
    tl.store(out + r * SIZE + d, rounded)


def rounding(device: str) -> None:
    """Addressed, unbiased, still where there is nothing to round; what is not a number stays none."""

    def rounded(values: np.ndarray, n: int, first: int, seed: int) -> np.ndarray:
        out = torch.empty((n, len(values)), dtype=torch.int16, device=device)
        at = torch.tensor([first], device=device)
        values_ = torch.from_numpy(values).to(device)
        round_rows[(n,)](values_, out, at, seed, TAG_ROUNDING, SIZE=len(values))
        return out.cpu().numpy()

    rng = np.random.default_rng(1)
    values = np.r_[rng.normal(0, 0.1, 24), 1e-30, -3e38, 1.0, -0.15625, 0.0, np.inf, -np.inf, 1e-39].astype(np.float32)
    for first, seed in ((0, 0), (2**32 - 3, 2**32 - 1), (2**40, 7)):
        found = rounded(values, 9, first, seed)
        for k in range(9):
            expected = host_rounding(values, k % 7, first + k, seed)
            assert np.array_equal(found[k, :29], expected[:29]), (first, seed, k)
        assert np.array_equal(found, rounded(values, 9, first, seed))
    n = 600 if device == "cpu" else 20_000
    drawn = (rounded(values, n, 5, 3).astype(np.int32) << 16).view(np.float32)
    for d, value in enumerate(values):
        if d >= 26:
            assert (drawn[:, d] == value).all() or value == np.float32(1e-39), f"{value} has nothing to round"
            continue
        low = (int(value.view(np.uint32)) >> 16 << 16) & 0xFFFFFFFF
        pair = np.array([low, low + 0x10000], np.uint32).view(np.float32).astype(np.float64)
        up = (float(value) - pair[0]) / (pair[1] - pair[0])
        assert np.isin(drawn[:, d], pair.astype(np.float32)).all(), "one of the two neighbours"
        fraction = (drawn[:, d] == np.float32(pair[1])).mean()
        assert abs(fraction - up) < 5 * np.sqrt(up * (1 - up) / n) + 1e-9, (value, fraction, up)
    nan = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan((rounded(nan, 50, 0, 1).astype(np.int32) << 16).view(np.float32)).all()


def bf16(device: str) -> None:
    """Tables of 16 bits: a step ends on a neighbour of the reference's; repeats are equal, another seed is not."""
    for model, optimizer, lr in (("mf", "row-adagrad", 0.05), ("gmf", "sgd", 0.003)):
        engine = make(device, model, lr=lr, optimizer=optimizer, precision="bf16", batch_size=118)
        reference = Started(make(device, model, lr=lr, optimizer=optimizer, precision="bf16", batch_size=118))
        for name in ("user_factors", "item_factors"):
            reference.w[name] = torch.from_numpy(reference.w[name]).to(torch.bfloat16).double().numpy()
        batch, _ = engine.stream.batch(Cursor(0, 0), 118)
        expected = reference.step(batch.users, batch.items, falling(0, lr))
        assert engine.advance(Cursor(0, 0), 1).loss_sum == pytest.approx(expected, rel=1e-5)
        off = []
        for name, value in reference.w.items():
            found = engine.named[name].cpu()
            if found.dim() == 2:
                assert torch.equal(found.to(torch.bfloat16).float(), found), "the model shows what the tables hold"
                steps_off = (found.numpy() - value) / (2.0 ** (np.floor(np.log2(np.abs(value))) - 7))
                assert np.abs(steps_off).max() < 1.001, name
                off.append(steps_off.ravel())
            else:
                np.testing.assert_allclose(found.numpy(), value, rtol=1e-5, atol=1e-5, err_msg=name)
        errors = np.concatenate(off)
        assert np.abs(errors).mean() > 0.1, "nothing was rounded"
        assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(errors.size), "unbiased"
        engine.advance(Cursor(1, 0), 1)
        again, other = (
            make(device, model, lr=lr, optimizer=optimizer, precision="bf16", batch_size=118, seed=seed)
            for seed in (0, 1)
        )
        for e in (again, other):
            e.advance(Cursor(0, 0), 1)
            e.advance(Cursor(1, 0), 1)
        assert all_bytes(again) == all_bytes(engine)
        assert all_bytes(other)["model.item_factors"] != all_bytes(engine)["model.item_factors"]
    still = make(device, "gmf", lr=0.0, precision="bf16")
    before = all_bytes(make(device, "gmf", precision="bf16"))
    still.advance(Cursor(0, 0), 1)
    rounded_once = all_bytes(still)
    still.advance(Cursor(1, 0), 1)
    assert all_bytes(still) == rounded_once, "what is representable does not move"
    assert rounded_once.keys() == before.keys()


def round_trip(device: str) -> None:
    """Cut after any step and resumed: the same bytes; a checkpoint opens on either engine, a foreign one on neither."""
    both: list[dict[str, Any]] = [{"optimizer": "row-adagrad"}, {"precision": "bf16"}]
    for options in both if THOROUGH or device != "cpu" else [{**both[0], **both[1]}]:
        whole = make(device, **options)
        for epoch in range(2):
            whole.advance(Cursor(epoch, 0), 10)
        for cut in range(1, 6) if device.startswith("cuda") else (4,):  # interpreted, each takes a quarter of a minute
            first, second = make(device, **options), make(device, **options)
            cursor = Cursor(0, 0)
            for engine, n in ((first, cut), (second, 6 - cut)):
                if engine is second:
                    second.load_state(*first.state())
                while n:
                    done = engine.advance(cursor, n)
                    n -= done.n_steps
                    at_end = done.cursor.position == engine.n_positives
                    cursor = Cursor(done.cursor.epoch + 1, 0) if at_end else done.cursor
            assert second.step == 6
            assert all_bytes(second) == all_bytes(whole), f"{options} cut after step {cut}"
    host, mine = on_cpu(optimizer="row-adagrad"), make(device, optimizer="row-adagrad")
    host.advance(Cursor(0, 0), 2)
    mine.load_state(*host.state())
    assert all_bytes(mine) == all_bytes(host)
    mine.advance(Cursor(0, 96), 1)
    host.load_state(*mine.state())
    assert all_bytes(mine) == all_bytes(host)
    tensors, meta = mine.state()
    with pytest.raises(CheckpointError, match=r"optimizer\.bias\.sum is missing"):
        mine.load_state({k: v for k, v in tensors.items() if k != "optimizer.bias.sum"}, meta)
    with pytest.raises(CheckpointError, match=rf"the model's \[{N_USERS}, 20\]"):
        mine.load_state(tensors | {"model.user_factors": tensors["model.user_factors"][:-1]}, meta)


class Capturing(HostDevice):
    """A stand-in that captures, as CUDA does: what was recorded runs again on the same memory."""

    captures = True
    replayed = 0

    def capture(self, work: Any) -> Any:
        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def feeds_and_graphs(device: str) -> None:
    """Blocks replayed as a graph, and batches drawn on the host, give the bytes of launches drawn on the device."""
    from fastrec.engines.fused import cuda

    block, cuda.BLOCK = cuda.BLOCK, 32  # two steps of 16
    seam = Capturing() if device == "cpu" else open_device(device)
    for precision in ("bf16",) if device == "cpu" else ("fp32", "bf16"):
        pair = []
        for where, graph, short in ((device, False, 0), (seam, True, cuda.SHORT)):
            before, cuda.SHORT = cuda.SHORT, short
            pair.append(make(where, "gmf", batch_size=16, graph=graph, precision=precision))
            cuda.SHORT = before
        plain, graphed = pair
        assert (plain._key, graphed._key) == (torch.int32, torch.int16)
        assert (plain.describe()["step"], graphed.describe()["step"]) == ("launches", "graph")
        for epoch in range(2):
            losses = [e.advance(Cursor(epoch, 0), 100).loss_sum for e in (plain, graphed)]
            assert losses[0] == losses[1]
        assert all_bytes(plain) == all_bytes(graphed)
    assert device != "cpu" or seam.replayed == 5, "each epoch's three whole blocks, but the first of a run"
    cuda.BLOCK = block
    indptr, items = positives()
    full = np.r_[indptr, indptr[-1] + N_ITEMS]  # a further user has every item, and is left out
    further = full, np.r_[items, np.arange(N_ITEMS, dtype=np.int32)]
    for options, columns in (({"distribution": "popularity"}, (indptr, items)), ({"on_full": "skip"}, further)):
        sampler = NegativeSampler(*columns, n_items=N_ITEMS, n_negatives=4, seed=1, **options)
        stream = Stream(*columns, sampler, seed=1)
        host, mine = on_cpu(stream=stream), make(device, stream=stream)
        assert mine.describe()["feed"] == "host"
        expected, done = host.advance(Cursor(0, 0), 9), mine.advance(Cursor(0, 0), 9)
        assert done[2:] == expected[2:]
        for name, value in host.state()[0].items():
            torch.testing.assert_close(mine.state()[0][name], value, rtol=2e-5, atol=2e-6, msg=name)


CHECKS = ("steps", "tiles", "rounding", "bf16", "round_trip", "feeds_and_graphs")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("checks", [CHECKS[:3], CHECKS[3:]], ids=" ".join)
def test_under_the_interpreter(checks: tuple[str, ...]) -> None:
    assert_ran(interpret("tests.engines.test_fused_cuda", *checks))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS)
def test_on_hardware(check: str) -> None:
    globals()[check]("cuda")


def test_a_cpu_without_the_interpreter_is_refused() -> None:
    with pytest.raises(ConfigError, match="run on CUDA, or under TRITON_INTERPRET=1"):
        make("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "optimizer = 'adam'"),
        ({"optimizer": "lazy-adam"}, "device = 'cuda': engine = fused, .*takes 'cpu'"),
        ({"model": "gmf", "loss": "bpr"}, "device = 'cuda': engine = fused, .*takes 'cpu'"),
        ({"model": "mlp"}, "model MLP"),
        ({"precision": "fp16"}, "precision = 'fp16'"),
    ],
)
def test_what_it_has_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("cpu", **options)


POINTERS = {
    **dict.fromkeys(("users", "items", "order", "starts"), "*i32"), **dict.fromkeys(("p", "q"), "*fp32"),
    **dict.fromkeys(("h", "user_bias", "item_bias", "bias", "g", "w", "slopes", "h_parts"), "*fp32"),
    **dict.fromkeys(("user_sum", "item_sum", "user_bias_sum", "item_bias_sum", "h_sum", "bias_sum", "lrs"), "*fp32"),
    **dict.fromkeys(("losses", "slope_parts", "total"), "*fp64"), "step_at": "*i64", "seed": "i64",
    **dict.fromkeys(("scale", "l2", "output_l2", "output_lr", "weight"), "fp32"),
}  # fmt: skip
SHAPE = {"DIM": 64, "WIDTH": 64, "COLUMNS": 5, "SIZE": 32, "PARTS": 1024, "COLUMN": 16}


@pytest.mark.parametrize("form", ["gmf-sgd", "gmf-bf16-adagrad", "mf-bpr-adagrad", "mf-bce-bf16"])
@pytest.mark.parametrize("kernel", ["score", "items", "users", "shared"])
def test_compiles_ahead_of_time_for_sm_90(kernel: str, form: str) -> None:
    from fastrec.engines.fused import gpu_steps

    fn = getattr(gpu_steps, f"{kernel}_kernel")
    words = form.split("-")
    constants = {**SHAPE, "GMF": "gmf" in words, "BPR": "bpr" in words, "BF16": "bf16" in words}
    constants["ADAGRAD"] = "adagrad" in words
    constants = {k: v for k, v in constants.items() if k in fn.arg_names}
    signature = {k: POINTERS.get(k, "i32") for k in fn.arg_names}
    if constants.get("BF16"):
        signature |= {k: "*i16" for k in ("p", "q") if k in signature}
    compiled(fn, signature, constants)
