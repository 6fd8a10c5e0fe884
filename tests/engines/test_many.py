"""The pass for many negatives: its draws, losses and steps against independent float64 code, and its promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastrec import models
from fastrec.batches.stream import Stream
from fastrec.engines.fused import codes
from fastrec.engines.fused.draw import draw_row, mark, row_size, unmark
from fastrec.engines.fused.many_engine import MODES, ManyEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.errors import CheckpointError, ConfigError
from fastrec.jit import njit
from fastrec.lanes import scratch
from fastrec.models import losses
from fastrec.models.cosine_mf import CosineMF
from fastrec.models.parts.loss import Loss
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from tests.helpers.cases import alternating
from tests.helpers.many_reference import Reference
from tests.helpers.training import N_ITEMS, N_USERS, make_model, make_stream, positives

NAMES = ["bce", "bpr", "softmax", "ccl", "gbce"]
SIMILARITIES = {name: losses.get(name).similarities for name in NAMES}
CASES = [(name, similarity) for name in NAMES for similarity in SIMILARITIES[name]]
MORE = [
    ("ccl", "cosine", "sgd", 20),
    ("bce", "dot", "sgd", 20),
    ("ccl", "cosine", "row-adagrad", 64),
    ("softmax", "cosine", "sgd", 7),
    ("bce", "dot", "row-adagrad", 1),
    ("ccl", "cosine with history", "row-adagrad", 20),
    ("softmax", "cosine with history", "sgd", 20),
]
"""Optimisers, kinds of dimension and histories with some of the losses."""


def steps_of(mode: int) -> list[Any]:
    """Every loss and score in both modes, and of MORE every other case in each: each is a kernel to compile."""
    cases: list[Any] = [(*case, "row-adagrad", 20) for case in CASES]
    for k, case in enumerate(MORE):
        cases.append(pytest.param(*case, marks=pytest.mark.slow if k % 2 == mode else ()))
    return cases


def options_of(name: str, **options: float) -> dict[str, float]:
    """Options of a loss that make every part of it matter on small random rows."""
    values = {"temperature": 0.2, "margin": 0.1, "negative_weight": 8.0, "calibration": 0.75, **options}
    return {k: v for k, v in values.items() if k in losses.get(name).options}


def loss_of(name: str, n_negatives: int = 40, n_items: int = 1000, **options: float) -> Loss:
    return losses.get(name).bind(options_of(name, **options), n_negatives, n_items)


def model_of(similarity: str, dim: int = 20) -> Any:
    if similarity == "dot":
        return make_model("mf", dim, init_std=0.3)
    options: dict[str, Any] = {}
    if similarity == "cosine with history":
        options = {"history": positives(), "history_weight": 1.5}
    return CosineMF(N_USERS, N_ITEMS, dim, seed=4, init_std=0.3, **options)


def make(
    name: str = "ccl", similarity: str | None = None, *, dim: int = 20, n_negatives: int = 40, **options: Any
) -> ManyEngine:
    similarity = similarity or SIMILARITIES[name][-1]
    options = {"batch_size": 16, "lr": lambda s: 0.05 / (1 + 0.1 * s), **options}
    options = {"loss": name, "loss_options": options_of(name), **options}
    return ManyEngine(model_of(similarity, dim), make_stream(n_negatives), **options)


def crowd(n_negatives: int, n_users: int = 60, n_items: int = 500) -> Stream:
    """About 2,000 positives; user 0 has 300 of them."""
    rng = np.random.default_rng(3)
    degrees = np.r_[300, rng.integers(0, 60, n_users - 1)]
    rows = [np.sort(rng.choice(n_items, n, replace=False)) for n in degrees]
    indptr, items = np.r_[0, np.cumsum(degrees)].astype(np.int64), np.concatenate(rows).astype(np.int32)
    sampler = NegativeSampler(indptr, items, n_items=n_items, n_negatives=n_negatives, seed=1)
    return Stream(indptr, items, sampler, seed=1)


def crowded(name: str, n_negatives: int = 800, **options: Any) -> ManyEngine:
    options = {"batch_size": 256, "lr": lambda _: 0.05, **options}
    options |= {"loss": name, "loss_options": options_of(name, margin=0.3)}
    stream = crowd(n_negatives)
    similarity = SIMILARITIES[name][-1]
    if similarity == "cosine":
        past = (stream.indptr, stream.items_of)
        model: Any = CosineMF(60, 500, 20, seed=4, history=past, history_weight=2.0)
    else:
        model = models.build("mf", n_users=60, n_items=500, dim=20, seed=4, init_std=0.1)
    return ManyEngine(model, stream, **options)


def train(engine: ManyEngine, epochs: int = 1, steps: int = 1000) -> list[float]:
    """Mean loss of each epoch."""
    means = []
    for epoch in range(epochs):
        cursor, loss, n = Cursor(epoch, 0), 0.0, 0
        while cursor.position < engine.n_positives:
            done = engine.advance(cursor, steps)
            cursor, loss, n = done.cursor, loss + done.loss_sum, n + done.n_samples
        means.append(loss / n)
    return means


def weights(engine: ManyEngine) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in engine.state()[0].items()}


def batch_of(engine: ManyEngine, cursor: Cursor) -> tuple[np.ndarray, np.ndarray]:
    """The stream's batch, its rows sorted as the fused engine visits them."""
    batch, _ = engine.stream.batch(cursor, engine.batch_size)
    order = np.argsort(batch.positions)
    return batch.users[order], batch.items[order]


# ---- draws -----------------------------------------------------------------------------------------------------------


@njit
def _draw(indptr, items, users, positions, epoch, seed, tag, n_items, out, ids, bits):  # type: ignore[no-untyped-def]
    for row in range(users.shape[0]):
        lo, hi = indptr[users[row]], indptr[users[row] + 1]
        mark(bits, items, lo, hi)
        draw_row(
            np.uint64(positions[row]), epoch, seed, tag, np.uint64(n_items), bits, items, lo, hi, out.shape[1], ids
        )
        unmark(bits, items, lo, hi)
        out[row] = ids[1 : 1 + out.shape[1]]


@pytest.mark.parametrize(
    ("n_items", "degree", "n_negatives"),
    [(31, 12, 40), (31, 30, 7), (33, 32, 70), (1000, 997, 33), (41_000, 30, 800), (2**31 - 1, 5, 65)],
)
def test_draws_are_the_samplers(n_items: int, degree: int, n_negatives: int) -> None:
    """Also for nearly full users, who end by rank, and for an item count that Lemire's draw often misses."""
    rng = np.random.default_rng(n_items)
    n_users = 20
    rows = [np.sort(rng.choice(n_items, degree, replace=False) if n_items < 10**6 else rng.integers(0, n_items, degree))
            for _ in range(n_users)]  # fmt: skip
    indptr, items = np.arange(n_users + 1) * degree, np.concatenate(rows).astype(np.int32)
    sampler = NegativeSampler(indptr, items, n_items=n_items, n_negatives=n_negatives, seed=7, memory_budget=0)
    users = np.repeat(np.arange(n_users, dtype=np.int32), 3)
    positions = rng.integers(0, 2**62, users.size)
    expected = sampler.sample(users, epoch=5, positions=positions)
    found = np.zeros_like(expected)
    ids, bits = np.zeros(row_size(n_negatives), np.int32), np.zeros((n_items >> 5) + 1, np.uint32)
    numbers = np.uint64(5), np.uint64(7), np.uint64(sampler.tag)
    _draw(sampler.indptr, sampler.items, users, positions, *numbers, n_items, found, ids, bits)
    assert np.array_equal(found, expected)
    assert not bits.any()


# ---- losses ----------------------------------------------------------------------------------------------------------


def _row(x: np.ndarray, n: int, loss: Loss) -> float:
    """The compiled form of a loss over x[:n] as the kernel calls it; x becomes the gradients."""
    form = loss.many

    @njit
    def run(x, n, a, b):  # type: ignore[no-untyped-def]
        value, product = form(x, scratch(x.shape[0]), n, a, b, 1.0)
        return value + np.log(product)

    return float(run(x, n, *map(np.float32, loss.bound)))


@pytest.mark.parametrize("n", [16, 40, 801])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_row_are_those_of_float64_autograd(name: str, n: int) -> None:
    loss = loss_of(name, n)
    scores = torch.from_numpy(np.random.default_rng(n).uniform(-0.9, 0.9, (1, 1 + n)))
    scores.requires_grad_(True)
    expected = loss.mean(scores) * loss.terms(1, 1 + n)
    expected.backward()
    gradient = scores.grad.numpy()[0]
    values = scores.detach().numpy()[0]
    kept = np.r_[0, 1 + np.flatnonzero(values[1:] > loss.bound[0])] if loss.sparse else np.arange(1 + n)
    x = np.zeros(n + 33, np.float32)
    x[: kept.size] = values[kept]
    assert _row(x, kept.size, loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    np.testing.assert_allclose(x[: kept.size], gradient[kept], rtol=2e-5, atol=1e-6)
    assert not loss.sparse or not gradient[np.setdiff1d(np.arange(1 + n), kept)].any()


@pytest.mark.parametrize("name", ["softmax", "gbce", "bce", "bpr"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4, -1e4])
def test_extreme_scores_give_no_wrong_number(name: str, value: float) -> None:
    loss = loss_of(name)
    x = np.zeros(64, np.float32)
    x[5] = value
    scores = torch.zeros((1, 41), dtype=torch.float64)
    scores[0, 5] = value
    expected = float(loss.mean(scores)) * loss.terms(1, 41)
    found = _row(x, 41, loss)
    assert not np.isfinite(found) if not np.isfinite(expected) else found == pytest.approx(expected, rel=1e-5)


# ---- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 7, 16, 20, 64, 200])
def test_codes_miss_no_score_above_the_bound_and_pass_few_below(dim: int) -> None:
    rng = np.random.default_rng(dim)
    n_items = 2048
    q = rng.standard_normal((n_items, dim)).astype(np.float32) * rng.uniform(0.01, 30, (n_items, 1)).astype(np.float32)
    q[:8] = np.eye(8, dim, dtype=np.float32) + np.float32(0.001)
    users = rng.standard_normal((30, dim)).astype(np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    table, steps = codes.empty(n_items, dim)
    inverse = (1 / np.linalg.norm(q, axis=1)).astype(np.float32)
    width = codes.stride(dim)

    @njit
    def near(q, inverse, table, steps, r, bound, found):  # type: ignore[no-untyped-def]
        mine, ids = np.zeros(width, np.int16), np.arange(q.shape[0]).astype(np.int32)
        for i in range(q.shape[0]):
            codes.encode_item(q, i, inverse[i], table, steps, dim)
        unit, slack = codes.encode_user(r, mine, dim)
        for j in range(0, q.shape[0], 8):
            bits = codes.within_reach(table, steps, mine, ids, j, unit, slack, bound, width)
            for k in range(8):
                found[j + k] = bits >> np.uint64(k) & np.uint64(1)

    exact = (users.astype(np.float64) @ q.T.astype(np.float64)) / np.linalg.norm(q.astype(np.float64), axis=1)
    extra = 0
    for r, scores in zip(users, exact):
        found = np.zeros(n_items, np.bool_)
        near(q, inverse, table, steps, r, np.float32(0.3 - 1e-5), found)
        assert found[scores > 0.3].all()
        assert not found[scores < 0.3 - 0.1].any()
        extra += int((found & (scores <= 0.3)).sum())
    assert extra < 0.05 * users.shape[0] * n_items


# ---- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "similarity", "optimizer", "dim"), steps_of(0))
def test_deterministic_steps_are_those_of_autograd(name: str, similarity: str, optimizer: str, dim: int) -> None:
    options: dict[str, Any] = {"l2": 0.4} if similarity == "dot" else {}
    sums = optimizer == "sgd"  # whose lr is of the batch's summed loss
    if sums:
        options["lr"] = lambda step: 0.05 / (1 + 0.1 * step) / loss_of(name).terms(16, 41)
    engine = make(name, similarity, dim=dim, optimizer=optimizer, mode="deterministic", **options)
    reference, cursor = Reference(engine), Cursor(0, 0)
    while cursor.position < engine.n_positives:
        users, items = batch_of(engine, cursor)
        scale = engine.loss.terms(*items.shape) if sums else 1
        expected = reference.step(users, items, engine.lr(engine.step) * scale)
        done = engine.advance(cursor, 1)
        assert done.loss_sum / done.n_samples == pytest.approx(expected, rel=2e-5)
        cursor = done.cursor
    _same(engine, reference)


@pytest.mark.parametrize(("name", "similarity", "optimizer", "dim"), steps_of(1))
def test_lock_free_steps_are_those_of_float64(name: str, similarity: str, optimizer: str, dim: int) -> None:
    options: dict[str, Any] = {"l2": 0.4} if similarity == "dot" else {}
    options |= {"mode": "lock_free", "threads": 1, "lr": lambda _: 0.01}
    engine = make(name, similarity, dim=dim, optimizer=optimizer, **options)
    reference = Reference(engine)
    users, items = batch_of(engine, Cursor(0, 0))
    expected = reference.sequential(users, items, 0.01)
    done = engine.advance(Cursor(0, 0), 1)
    terms = engine.loss.terms(1, 41) * len(users)
    assert done.loss_sum / done.n_samples == pytest.approx(expected / terms, rel=2e-5)
    _same(engine, reference)


@pytest.mark.parametrize(
    ("name", "similarity"), [("softmax", "dot"), ("gbce", "dot"), ("softmax", "cosine"), ("ccl", "cosine with history")]
)
def test_both_engines_take_the_same_steps(name: str, similarity: str) -> None:
    """From the same stream, at the same lr and l2: what a run calls them, whatever engine trains it."""
    found = []
    for fused in (True, False):
        model, stream = model_of(similarity), make_stream(40)
        options: dict[str, Any] = {"batch_size": 16, "lr": lambda _: 0.002, "loss": name, "optimizer": "sgd"}
        options |= {"loss_options": options_of(name), "l2": 0.5 if similarity == "dot" else 0.0}
        engine = ManyEngine(model, stream, **options) if fused else TorchEngine(model, stream, **options)
        done = engine.advance(Cursor(0, 0), 3)
        engine.close()
        found.append((done.loss_sum, {k: v.detach().numpy().copy() for k, v in model.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    start = dict(model_of(similarity).named_parameters())
    for key, value in found[0][1].items():
        np.testing.assert_allclose(value, found[1][1][key], rtol=1e-4, atol=1e-6, err_msg=key)
        assert key in ("bias", "user_bias") or not np.allclose(value, start[key].detach().numpy(), atol=1e-4)


def test_weighted_negatives_of_a_softmax_are_corrected_by_logq() -> None:
    """The corrected sum over weighted draws estimates the sum over uniform ones; the plain sum does not."""
    rng = np.random.default_rng(0)
    indptr, items = positives()
    weights, user = rng.uniform(0.1, 4.0, N_ITEMS), 6
    sampler = NegativeSampler(
        indptr, items, n_items=N_ITEMS, n_negatives=40_000, distribution="weights", weights=weights
    )
    drawn = sampler.sample(np.array([user]), epoch=0, start=0)
    scores = rng.normal(size=N_ITEMS) + 0.5 * weights
    legal = np.setdiff1d(np.arange(N_ITEMS), items[indptr[user] : indptr[user + 1]])
    rows = torch.from_numpy(np.concatenate((items[indptr[user]][None, None], drawn), 1))
    logits = torch.from_numpy(scores)[rows.long()]
    loss = losses.get("softmax").bind({"temperature": 0.5}, drawn.size, N_ITEMS)
    corrected = loss.corrected(loss, sampler)(logits, torch.tensor([user]), rows)
    own = np.exp(2 * scores[items[indptr[user]]])
    expected = np.log(own + drawn.size * np.exp(2 * scores[legal]).mean()) - np.log(own)
    assert float(corrected) == pytest.approx(expected, abs=0.05)
    assert abs(float(loss.mean(logits)) - expected) > 0.3


def _same(engine: ManyEngine, reference: Reference) -> None:
    for name, value in reference.w.items():
        np.testing.assert_allclose(engine.named[name], value, rtol=1e-4, atol=2e-5, err_msg=name)
    for name, value in reference.sums.items():
        np.testing.assert_allclose(engine.sums[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["margin", "weight", "one negative less"])
def test_a_biased_variant_is_told_apart(fault: str, mode: str) -> None:
    """The comparison above sees each of these."""
    engine = make("ccl", mode=mode, threads=1)
    reference, (users, items) = Reference(engine), batch_of(engine, Cursor(0, 0))
    if fault == "margin":
        reference.loss = loss_of("ccl", margin=0.13)
    elif fault == "weight":
        reference.loss = loss_of("ccl", negative_weight=8.2)
    else:
        items = items[:, :-1]
    (reference.step if mode == "deterministic" else reference.sequential)(users, items, 0.05)
    engine.advance(Cursor(0, 0), 1)
    with pytest.raises(AssertionError, match=r"item_factors|user_factors"):
        _same(engine, reference)


# ---- promises --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ccl", "softmax", "bce"])
def test_any_number_of_threads_gives_the_same_bytes(name: str) -> None:
    found = []
    for threads in (1, 2, 3, 7):
        engine = crowded(name, threads=threads)
        found.append((train(engine), weights(engine)))
    assert all(f == found[0] for f in found[1:])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["ccl", "softmax", "gbce"])
def test_cut_mid_epoch_and_resumed_gives_the_same_bytes(name: str, mode: str) -> None:
    options: dict[str, Any] = {"mode": mode, "threads": 1}
    whole = crowded(name, **options)
    train(whole, 2)
    per_epoch = whole.step // 2
    for cut in (1, per_epoch // 2, per_epoch + 1):
        first, cursor = crowded(name, **options), Cursor(0, 0)
        for _ in range(cut):
            cursor = first.advance(cursor, 1).cursor
            if cursor.position == first.n_positives:
                cursor = Cursor(cursor.epoch + 1, 0)
        tensors, meta = first.state()
        second = crowded(name, **options)
        second.load_state({k: v.clone() for k, v in tensors.items()}, meta)
        while cursor.epoch < 2:
            cursor = second.advance(cursor, per_epoch).cursor
            if cursor.position == second.n_positives:
                cursor = Cursor(cursor.epoch + 1, 0)
        assert weights(second) == weights(whole), f"cut after step {cut}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "similarity"), CASES)
def test_loss_falls(name: str, similarity: str, mode: str) -> None:
    losses = train(make(name, similarity, mode=mode, lr=lambda _: 0.03), 12)
    assert losses[-1] < 0.95 * losses[0]


def test_lock_free_on_threads_stays_close_to_one_thread() -> None:
    losses = [train(crowded("ccl", 200, mode="lock_free", threads=t, lr=lambda _: 0.02), 6)[-1] for t in (1, 2, 4)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize(("name", "mode"), alternating(NAMES, MODES))
def test_a_diverging_run_says_so_in_its_loss(name: str, mode: str) -> None:
    engine = make(name, mode=mode, optimizer="sgd", lr=lambda _: 1e30)
    assert not np.isfinite(train(engine, 3)[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "hogwild"}, "fused_mode = 'hogwild'"),
        ({"optimizer": "lazy-adam"}, "optimizer = 'lazy-adam'"),
        (
            {"name": "bce", "similarity": "cosine"},
            "loss = 'bce': for CosineMF, .* takes ccl, softmax",
        ),
        (
            {"name": "ccl", "similarity": "dot"},
            "loss = 'ccl': for MF, .* takes bce, bpr, gbce, softmax",
        ),
        ({"l2": 0.1}, "l2 = 0.1: has no effect on cosines"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_it_does_not_support_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_other_models_and_samplers_are_refused() -> None:
    indptr, items = make_stream().indptr, make_stream().items_of
    sampler = NegativeSampler(indptr, items, n_items=N_ITEMS, n_negatives=20, distribution="popularity")
    stream = Stream(indptr, items, sampler, seed=0)
    options: dict[str, Any] = {"batch_size": 8, "lr": lambda _: 0.1, "loss": "softmax"}
    with pytest.raises(ConfigError, match="distribution = 'popularity'"):
        ManyEngine(model_of("dot"), stream, **options)
    with pytest.raises(ConfigError, match="model GMF"):
        ManyEngine(make_model("gmf"), make_stream(20), **options)


@pytest.mark.parametrize(
    ("field", "value"),
    [("margin", 1.0), ("margin", float("nan")), ("temperature", 0.0), ("negative_weight", -1.0), ("calibration", 1.5)],
)
def test_options_of_a_loss_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} = "):
        next(form for form in map(losses.get, NAMES) if field in form.options).bind({field: value}, 40, 1000)
    with pytest.raises(ConfigError, match="loss = bce has no options"):
        losses.get("bce").bind({field: value}, 40, 1000)


def test_a_foreign_checkpoint_is_refused() -> None:
    engine = make()
    tensors, meta = engine.state()
    with pytest.raises(CheckpointError, match=r"optimizer\.item_factors\.sum is missing"):
        engine.load_state({k: v for k, v in tensors.items() if k != "optimizer.item_factors.sum"}, meta)


@pytest.mark.parametrize("similarity", ["cosine", "cosine with history"])
def test_cosine_model_scores_and_vectors_agree(similarity: str) -> None:
    model = model_of(similarity)
    users, items = torch.tensor([6, 0, 6, 3, 22]), torch.arange(N_ITEMS).expand(5, -1)  # user 3 has no history
    p, q, bias = model.vectors()
    torch.testing.assert_close(model(users, items).detach(), p[users] @ q.T + bias)
    torch.testing.assert_close(model.score_all(users).detach(), p[users] @ q.T)
    torch.testing.assert_close(model.cross(users, torch.arange(N_ITEMS)).detach(), p[users] @ q.T)
    torch.testing.assert_close(p.norm(dim=1), torch.ones(N_USERS))


def test_history_is_blended_into_the_users_direction() -> None:
    model, (indptr, items) = model_of("cosine with history"), positives()
    q = model.item_factors.detach().double().numpy()
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    past = q[items[indptr[6] : indptr[7]]].mean(0)
    z = model.user_factors.detach().double().numpy()[6] + 1.5 * past / np.linalg.norm(past)
    np.testing.assert_allclose(model.vectors()[0][6].numpy(), z / np.linalg.norm(z), rtol=1e-5, atol=1e-6)


def test_scoring_may_weigh_the_history_more_than_training() -> None:
    options: dict[str, Any] = {"seed": 4, "init_std": 0.3, "history": positives()}
    both = CosineMF(N_USERS, N_ITEMS, 20, history_weight=1.5, scored_history_weight=4.0, **options)
    trained, scored = (CosineMF(N_USERS, N_ITEMS, 20, history_weight=w, **options) for w in (1.5, 4.0))
    users, items = torch.tensor([6, 0]), torch.arange(N_ITEMS).expand(2, -1)
    torch.testing.assert_close(both.train()(users, items), trained(users, items))
    torch.testing.assert_close(both.eval()(users, items), scored(users, items))
    torch.testing.assert_close(both.vectors(), scored.vectors())
    torch.testing.assert_close(both.score_all(users), scored.score_all(users))


def test_a_history_that_does_not_fit_is_refused() -> None:
    indptr, items = positives()
    options: dict[str, Any] = {"seed": 0, "history_weight": 1.0}
    with pytest.raises(ConfigError, match="without a history"):
        CosineMF(N_USERS, N_ITEMS, 4, **options)
    with pytest.raises(ConfigError, match="history has 22 users, the model 23"):
        CosineMF(N_USERS, N_ITEMS, 4, history=(indptr[:-1], items), **options)
    with pytest.raises(ConfigError, match="history_weight = nan"):
        CosineMF(N_USERS, N_ITEMS, 4, seed=0, history_weight=float("nan"))
    other = CosineMF(N_USERS, N_ITEMS, 4, history=(indptr, items[::-1].copy()), **options)
    with pytest.raises(ConfigError, match="history is not the training part"):
        ManyEngine(other, make_stream(20), batch_size=8, lr=lambda _: 0.1, loss="ccl")
