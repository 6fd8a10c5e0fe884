"""What the torch engine can be asked for: accumulation, hard negatives, in-batch softmax, dropout, precisions."""

from __future__ import annotations

import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from fastrec import models
from fastrec.batches.device import HostDevice
from fastrec.batches.stream import Stream
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.engines.minibatch.steps import hardest
from fastrec.errors import ConfigError
from fastrec.models.losses.inbatch_softmax import InBatchSoftmax
from fastrec.models.parts.dropout import AddressedDropout
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from tests.helpers.training import (
    DOT,
    N_ITEMS,
    make_engine,
    make_model,
    make_stream,
    masters_keep_small_updates,
    positives,
)


def trained(steps: int = 10**9, **options: Any) -> dict[str, torch.Tensor]:
    engine = make_engine(**options)
    engine.advance(Cursor(0, 0), steps)
    engine.close()
    return {k: v.detach().clone() for k, v in engine.model.state_dict().items()}


@pytest.mark.parametrize("model", DOT)
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_accumulated_batches_equal_one_large_batch_tail_included(model: str, loss: str) -> None:
    options: dict[str, Any] = {"model": model, "loss": loss, "l2": 0.01, "optimizer": "sgd", "lr": lambda _: 0.004}
    small, large = trained(batch_size=8, accumulate=4, **options), trained(batch_size=32, **options)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, rtol=1e-4, atol=1e-6, msg=name)
    engine = make_engine(model=model, batch_size=8, accumulate=4)
    assert engine.n_positives % 32, "the tail must be shorter than an update"
    assert engine.advance(Cursor(0, 0), 10**9).n_positives == engine.n_positives
    engine.close()


@pytest.mark.parametrize(
    ("model", "step"),
    [(model, step) for model in ("gmf", "neumf") for step in ("kernels", "autograd", "graph")],
)
def test_h_moves_by_its_own_lr_and_shrinks_by_its_own_l2(model: str, step: str) -> None:
    """One step of SGD: h moves by output_lr * (gradient + output_l2 * h), layers shrink by output_l2."""
    lr = 0.2 / (16 * 5)  # 0.2 of the mean over the batch's samples
    options: dict[str, Any] = {"model": model, "optimizer": "sgd", "l2": 2.5, "lr": lambda _: lr}
    options |= {} if step == "kernels" else {"device": Capturing(), "graph": step == "graph"}
    steps = 1 if step != "graph" else 5  # the fourth full batch is captured
    plain, apart = trained(steps, **options), trained(steps, **options, output_l2=2.5, output_lr=1.0)
    assert all(torch.equal(plain[k], apart[k]) for k in plain), (
        "output_l2 = l2 and output_lr = 1 are what leaving out means"
    )
    start = {k: v.detach() for k, v in make_model(model).named_parameters()}
    one, no_l2, both = (
        trained(1, **options, **o) for o in ({}, {"output_l2": 0.0}, {"output_l2": 0.0, "output_lr": 0.25})
    )
    torch.testing.assert_close(one["h"], no_l2["h"] - 0.2 * 0.5 * start["h"])
    torch.testing.assert_close(both["h"] - start["h"], 0.25 * (no_l2["h"] - start["h"]), rtol=1e-4, atol=1e-7)
    for name in start.keys() - {"h"}:
        layer = name.startswith(("weights", "biases"))
        torch.testing.assert_close(one[name], both[name] - (0.2 * 0.5 * start[name] if layer else 0), msg=name)


def test_hard_negatives_are_the_highest_scored_of_those_drawn() -> None:
    logits = torch.tensor([[9.0, 1.0, 3.0, 2.0], [0.0, 7.0, 5.0, 6.0]])
    items = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]], dtype=torch.int32)
    assert hardest(items, logits, 2).tolist() == [[10, 12, 13], [20, 21, 23]]


@pytest.mark.parametrize("model", ["gmf", "mlp"])
def test_hard_negatives_train_on_n_of_m(model: str) -> None:
    engine = make_engine(model, n_negatives=8, negatives=2)
    done = engine.advance(Cursor(0, 0), 3)
    assert done.n_samples == 3 * 16 * 3
    easy = make_engine(model, n_negatives=8)
    assert done.loss_sum / done.n_samples != easy.advance(Cursor(0, 0), 3).loss_sum / (3 * 16 * 9)
    engine.close()
    easy.close()


def test_more_trained_than_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="only 4 are drawn"):
        make_engine(negatives=5)


@pytest.mark.parametrize("budget", [1 << 20, 0])
def test_history_by_bitmap_and_by_search(budget: int) -> None:
    indptr, items = positives()
    loss = InBatchSoftmax(indptr, items, N_ITEMS, budget=budget)
    users, columns = torch.arange(23, dtype=torch.int32), torch.arange(N_ITEMS, dtype=torch.int32)
    expected = np.zeros((23, N_ITEMS), bool)
    expected[np.repeat(np.arange(23), np.diff(indptr)), items] = True
    assert np.array_equal(loss.seen(users, columns).numpy(), expected)


def test_in_batch_softmax_against_numpy() -> None:
    indptr, items = positives()
    batch = make_stream().read(0, 0, 9)
    users, rows = torch.from_numpy(batch.users), torch.from_numpy(batch.items)
    net = make_model("mf", init_std=0.7).double()
    logits, cross = net(users, rows), net.cross(users, rows[:, 0])
    found = InBatchSoftmax(indptr, items, N_ITEMS)(logits, cross, users, rows).item()
    scores = net.score_all(users).detach().numpy()
    counts, degrees = np.bincount(items, minlength=N_ITEMS), np.diff(indptr)
    total = 0.0
    for r, user in enumerate(batch.users):
        history = items[indptr[user] : indptr[user + 1]]
        sampled = list(batch.items[r, 1:])
        others = [i for i in batch.items[:, 0] if i not in history]
        denominator = np.exp(scores[r, batch.items[r, 0]])
        for i in sampled + others:
            expected = 4 / (N_ITEMS - degrees[user]) + 8 * counts[i] / items.size
            denominator += np.exp(scores[r, i]) / expected
        total -= np.log(np.exp(scores[r, batch.items[r, 0]]) / denominator)
    assert found == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize("model", models.names())
def test_cross_scores_agree_with_forward(model: str) -> None:
    net = make_model(model, init_std=0.7)
    users, items = torch.tensor([0, 5], dtype=torch.int32), torch.tensor([3, 9, 30], dtype=torch.int32)
    torch.testing.assert_close(net.cross(users, items), net(users, items.expand(2, -1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", DOT)
def test_softmax_learns(model: str) -> None:
    engine = make_engine(model, loss="inbatch-softmax", lr=lambda _: 0.02)
    first = engine.advance(Cursor(0, 0), 10**9)
    for epoch in range(1, 15):
        last = engine.advance(Cursor(epoch, 0), 10**9)
    assert last.loss_sum < 0.9 * first.loss_sum
    engine.close()


def test_dropout_is_addressed() -> None:
    shape = torch.Size((4, 5, 18))
    positions = torch.tensor([0, 7, 2**33 + 1, 5])
    drop = AddressedDropout(0.25, 3)
    drop.at(2, positions)
    whole = drop.kept(shape, 1)
    drop.at(2, positions[2:])
    assert torch.equal(drop.kept(torch.Size((2, 5, 18)), 1), whole[2:]), "a row's mask is its own, whatever the batch"
    for other in (drop.kept(torch.Size((2, 5, 18)), 0), whole[:2]):
        assert not torch.equal(other, whole[2:])
    drop.at(3, positions)
    assert not torch.equal(drop.kept(shape, 1), whole)


def test_dropout_rate_and_scale() -> None:
    drop = AddressedDropout(0.25, 0)
    drop.at(0, torch.arange(500))
    x = drop(torch.ones(500, 5, 32), 0)
    assert x.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (x == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert (x == 0).float().mean((0, 1)).std().item() < 0.02, "every unit alike"


def test_dropout_acts_on_mlp_layers_in_training_only() -> None:
    assert not torch.equal(trained(model="mlp", dropout=0.5)["h"], trained(model="mlp")["h"])
    assert torch.equal(trained(model="mlp", dropout=0.5)["h"], trained(model="mlp", dropout=0.5)["h"])
    engine = make_engine("neumf", dropout=0.5)
    engine.advance(Cursor(0, 0), 2)
    assert engine.model.drop is None, "outside a step nothing is dropped"
    engine.close()
    with pytest.raises(ConfigError, match="no layer to drop"):
        make_engine("gmf", dropout=0.1)


@pytest.mark.parametrize("model", models.names())
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_rows_are_gathered_in_16_bits_and_all_else_is_float32(model: str, precision: str, dtype: torch.dtype) -> None:
    engine = make_engine(model, precision=precision)
    seen: list[torch.dtype] = []
    inner = engine.model.gather

    def gather(indices: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = inner(indices, table)
        seen.append(rows.dtype)
        return rows

    engine.model.gather = gather
    logits: list[torch.dtype] = []
    engine.model.register_forward_hook(lambda _m, _i, out: logits.append(out.dtype))
    engine.advance(Cursor(0, 0), 3)
    assert engine.describe()["gathered"] == str(dtype).removeprefix("torch.")
    assert model == "mlp" or seen, "the tables were read some other way"
    assert set(seen) <= {dtype}
    assert set(logits) == {torch.float32}
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}
    for values in engine.optimizer.state.values():
        assert {v.dtype for v in values.values()} <= {torch.float32, torch.float64}
    engine.close()


@pytest.mark.parametrize("model", ["mf", "gmf", "neumf"])
def test_bf16_learns_as_fp32_does(model: str) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        engine = make_engine(model, precision=precision, lr=lambda _: 0.02)
        for epoch in range(12):
            last = engine.advance(Cursor(epoch, 0), 10**9)
        losses[precision] = last.loss_sum / last.n_samples
        engine.close()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_the_master_keeps_updates_that_bf16_would_lose() -> None:
    """At 1.0 bf16 steps by 2^-8: smaller updates must add up in the fp32 master."""
    masters_keep_small_updates(make_engine("gmf", precision="bf16", optimizer="sgd", lr=lambda _: 1e-4))


def test_evaluation_reads_the_masters() -> None:
    engine = make_engine("gmf", precision="bf16")
    engine.advance(Cursor(0, 0), 2)
    users, items = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    with torch.no_grad():
        torch.testing.assert_close(engine.model(users, items), engine.model.score_all(users).gather(1, items.long()))
    engine.close()


@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("options", [
    {"model": "mlp", "dropout": 0.4},
    {"model": "gmf", "precision": "bf16"},
    {"model": "neumf", "precision": "fp16"},
    {"model": "gmf", "loss": "inbatch-softmax", "optimizer": "sgd"},
    {"model": "mf", "accumulate": 2, "n_negatives": 6, "negatives": 3},
])  # fmt: skip
def test_state_carries_every_option_across_a_cut(options: dict[str, Any], cut: int) -> None:
    whole = make_engine(**options)
    end = whole.advance(Cursor(0, 0), 6).cursor
    first = make_engine(**options)
    cursor = first.advance(Cursor(0, 0), cut).cursor
    tensors, meta = first.state()
    tensors = {k: v.clone() for k, v in tensors.items()}
    second = make_engine(**options)
    second.load_state(tensors, meta)
    assert second.advance(cursor, 6 - cut).cursor == end
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for engine in (whole, first, second):
        engine.close()


@pytest.mark.parametrize("model", ["gmf", "neumf"])
def test_a_scaled_gradient_that_overflows_is_left_out(model: str) -> None:
    """fp16: the scaler skips the update, halves its factor until gradients are finite, and training goes on."""
    engine = make_engine(model, precision="fp16")
    scaler = engine._step.scaler
    assert scaler is not None
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**127})
    before = {k: v.clone() for k, v in engine.model.state_dict().items()}
    done = engine.advance(Cursor(0, 0), 1)
    assert np.isfinite(done.loss_sum), "what is reported is the loss itself, not the scaled one"
    assert all(torch.equal(v, before[k]) for k, v in engine.model.state_dict().items())
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**40})
    cursor = done.cursor
    for _ in range(60):
        cursor = engine.advance(
            cursor if cursor.position < engine.n_positives else Cursor(cursor.epoch + 1, 0), 1
        ).cursor
    assert 1.0 < scaler.get_scale() < 2.0**40
    moved = engine.model.state_dict()
    assert not torch.equal(moved["user_factors"], before["user_factors"])
    assert all(v.isfinite().all() for v in moved.values())
    engine.close()


@pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), reason="no C++ compiler for inductor"
)
@pytest.mark.parametrize(
    "options", [{"model": "gmf", "l2": 0.01}, {"model": "neumf", "n_negatives": 6, "negatives": 3}]
)
def test_compiled_equals_eager(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole epoch, its shorter tail batch included; the state goes over from one to the other."""
    torch._dynamo.reset()
    frames: list[Any] = []
    inner = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **k: frames.append(net) or inner(net, **k))
    compiled = make_engine(compile=True, batch_size=32, **options)
    eager = make_engine(device=Capturing(), graph=False, batch_size=32, **options)
    assert frames == [compiled.model], "compile=True must reach torch.compile"
    assert compiled.describe()["step"] == eager.describe()["step"] == "autograd"
    assert compiled.n_positives % 32
    found, expected = (e.advance(Cursor(0, 0), 10**9) for e in (compiled, eager))
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for name, value in eager.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert set(compiled.state()[0]) == set(eager.state()[0])
    for engine in (compiled, eager):
        engine.close()


@pytest.mark.parametrize("model", ["gmf", "neumf"])
def test_batches_of_64_to_over_200_000_positives(model: str) -> None:
    """One epoch of 210,000 positives: a small batch, one that leaves a tail, and one larger than the data."""
    indptr = np.arange(2_101, dtype=np.int64) * 100
    items = np.concatenate([np.sort(np.random.default_rng(u).choice(400, 100, replace=False)) for u in range(2_100)])
    for batch_size, most, expected in ((64, 5, 320), (200_000, 9, 210_000), (300_000, 9, 210_000)):
        sampler = NegativeSampler(indptr, items, n_items=400, n_negatives=4, seed=1)
        net = models.build(model, n_users=2_100, n_items=400, dim=4, seed=2)
        stream = Stream(indptr, items.astype(np.int32), sampler, seed=1)
        engine = TorchEngine(net, stream, batch_size=batch_size, lr=lambda _: 0.01)
        done = engine.advance(Cursor(0, 0), most)
        assert (done.n_positives, done.n_samples) == (expected, 5 * expected)
        assert done.n_steps == -(-expected // batch_size)
        assert done.loss_sum / done.n_samples == pytest.approx(np.log(2), abs=0.01), "the mean, whatever the batch"
        engine.close()


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of bce, bpr"):
        TorchEngine(make_model(), make_stream(), batch_size=4, lr=lambda _: 0.1, loss="hinge")


class Capturing(HostDevice):
    """A stand-in whose graphs, like CUDA's, see only the memory and the numbers that stood there at capture."""

    captures = True

    def __init__(self) -> None:
        super().__init__()
        self.captured = self.replayed = self.warmed = 0

    def warm_up(self, work: Any) -> None:
        self.warmed += 1
        work()

    def capture(self, work: Any) -> Any:
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.mark.parametrize("options", [
    {"model": "mf"}, {"model": "gmf", "l2": 0.1}, {"model": "mlp", "dropout": 0.3}, {"model": "neumf"},
    {"model": "gmf", "precision": "bf16"}, {"model": "gmf", "loss": "inbatch-softmax", "optimizer": "sgd"},
    {"model": "gmf", "optimizer": "lazy-adam"},
    {"model": "gmf", "optimizer": "row-adagrad", "n_negatives": 8, "negatives": 2},
    {"model": "gmf", "l2": 0.1, "output_l2": 0.3, "output_lr": 0.1},
])  # fmt: skip
def test_captured_steps_equal_eager_steps(options: dict[str, Any]) -> None:
    """Static buffers, the rate as a tensor, warm-up and the eager tail: same weights as without a graph."""
    device = Capturing()
    graphed = make_engine(device=device, **options)
    eager = make_engine(device=Capturing(), graph=False, **options)
    assert (graphed.describe()["step"], eager.describe()["step"]) == ("autograd, graph", "autograd")
    for epoch in range(2):
        found, expected = (e.advance(Cursor(epoch, 0), 10**9) for e in (graphed, eager))
        assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)
    for name, value in eager.model.state_dict().items():
        if name == "bias" and options.get("loss") == "inbatch-softmax":
            continue  # a constant cancels in a softmax: its gradient is rounding alone, which Adam blows up to a step
        torch.testing.assert_close(graphed.model.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    full = graphed.n_positives // 16
    assert (device.warmed, device.captured, device.replayed) == (3, 1, 2 * full - 3)
    graphed.close()
    eager.close()


@pytest.mark.parametrize(("layer", "columns", "width"), [(1, 32769, 4), (3, 16385, 4), (1, 2, 4 * 65536 + 1)])
def test_a_dropout_without_addresses_is_refused(layer: int, columns: int, width: int) -> None:
    AddressedDropout.check(layer, columns - (width == 4), width - (width > 4))
    with pytest.raises(ConfigError, match=f"layer {layer} of {columns} columns and width {width} has no address"):
        AddressedDropout.check(layer, columns, width)


def test_a_graph_goes_when_a_state_is_put_back() -> None:
    """It holds the optimiser's old tensors: the next full batches warm up and are captured again."""
    device = Capturing()
    engine = make_engine(device=device)
    engine.advance(Cursor(0, 0), 5)
    engine.load_state(*engine.state())
    engine.advance(Cursor(1, 0), 5)
    assert (device.warmed, device.captured) == (6, 2)
    engine.close()


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"optimizer": "adagrad"}, {"accumulate": 2}])
def test_what_no_graph_can_hold_runs_eagerly_and_says_so(options: dict[str, Any]) -> None:
    engine = make_engine(device=Capturing(), **options)
    assert engine.describe()["step"] == "autograd"
    engine.advance(Cursor(0, 0), 3)
    engine.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", DOT)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graph_loss_equals_eager_loss(model: str, precision: str) -> None:
    losses = []
    for graph in (True, False):
        engine = make_engine(model, device="cuda", precision=precision, graph=graph)
        losses.append([engine.advance(Cursor(e, 0), 10**9).loss_sum for e in range(4)])
        assert engine.describe()["step"] == "kernels" + ", graph" * graph
        engine.close()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"loss": "inbatch-softmax", "optimizer": "sgd"}, "autograd, graph"),
        ({"loss": "inbatch-softmax", "precision": "bf16"}, "autograd, graph"),
        ({"model": "neumf", "precision": "fp16", "dropout": 0.3}, "autograd"),
        ({"model": "mlp", "compile": True}, "autograd, graph"),
    ],
)
def test_autograd_on_cuda_trains_as_on_the_cpu(options: dict[str, Any], step: str) -> None:
    """What no kernels of our own serve: softmax, fp16 and compile."""
    sums = []
    for device in ("cuda", "cpu"):
        engine = make_engine(device=device, **options)
        assert device == "cpu" or engine.describe()["step"] == step
        sums.append([engine.advance(Cursor(e, 0), 10**9).loss_sum for e in range(3)])
        engine.close()
    np.testing.assert_allclose(sums[0], sums[1], rtol=2e-2 if "precision" in options else 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", models.names())
def test_cuda_agrees_with_the_cpu(model: str) -> None:
    losses = []
    for device in ("cuda", "cpu"):
        engine = make_engine(model, device=device, precision="fp32")
        losses.append([engine.advance(Cursor(e, 0), 10**9).loss_sum for e in range(3)])
        engine.close()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
