"""Learning rates as functions of the step; optimisers against plain float64 formulas."""

import math

import numpy as np
import pytest
import torch

from fastrec import optim
from fastrec.errors import ConfigError
from fastrec.optim.rule import Setting
from fastrec.optim.schedules import learning_rate


def test_schedules() -> None:
    assert learning_rate(999, lr=0.5) == 0.5
    assert [learning_rate(k, lr=1.0, warmup=4) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    linear = [learning_rate(k, lr=1.0, schedule="linear", total=10) for k in range(11)]
    np.testing.assert_allclose(linear, 1 - np.arange(11) / 10)
    cosine = [learning_rate(k, lr=2.0, schedule="cosine", total=10, warmup=2) for k in (2, 6, 10, 99)]
    np.testing.assert_allclose(cosine, [2.0, 1.0, 0.0, 0.0], atol=1e-12)
    step = [learning_rate(k, lr=1.0, schedule="step", every=3, factor=0.1) for k in (0, 2, 3, 6)]
    np.testing.assert_allclose(step, [1, 1, 0.1, 0.01])
    with pytest.raises(ConfigError, match="must be one of"):
        learning_rate(0, lr=1.0, schedule="exponential")


def test_step_drops_count_from_the_end_of_the_warm_up() -> None:
    lrs = [learning_rate(k, lr=1.0, schedule="step", every=10, warmup=20) for k in (0, 19, 20, 29, 30, 39, 40)]
    assert lrs == [0.05, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    for schedule in ("constant", "cosine", "linear", "step"):  # every schedule reaches lr, and begins from there
        at = [learning_rate(k, lr=1.0, schedule=schedule, total=100, every=7, warmup=20) for k in (19, 20)]
        assert at == [1.0, 1.0], schedule


def run(
    name: str, gradients: list[np.ndarray], start: np.ndarray, lr: float = 0.1, l2: float = 0.0, **options: bool
) -> np.ndarray:
    p = torch.nn.Parameter(torch.from_numpy(start.astype(np.float32)))
    optimizer = optim.get(name).make([p], Setting(lr=lr, weight_decay=l2, **options))
    for g in gradients:
        p.grad = torch.from_numpy(g.astype(np.float32))
        optimizer.step()
    return p.detach().numpy().astype(np.float64)


@pytest.fixture
def problem(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Three steps; row 2 has a gradient in the first step alone, row 3 never."""
    gradients = [rng.normal(size=(5, 3)) for _ in range(3)]
    for k, g in enumerate(gradients):
        g[3] = 0
        if k:
            g[2] = 0
    return rng.normal(size=(5, 3)), gradients


def adam(
    w: np.ndarray, gradients: list[np.ndarray], lr: float, *, lazy: bool = False, decay: float = 0.0
) -> np.ndarray:
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        rows = (g != 0).any(1) if lazy else np.ones(len(w), bool)
        w *= 1 - lr * decay
        m[rows] = 0.9 * m[rows] + 0.1 * g[rows]
        v[rows] = 0.999 * v[rows] + 0.001 * g[rows] ** 2
        step = lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w[rows] -= step[rows]
    return w


def test_adam_and_adamw_against_numpy(problem: tuple[np.ndarray, list[np.ndarray]]) -> None:
    w, gradients = problem
    np.testing.assert_allclose(run("adam", gradients, w), adam(w, gradients, 0.1), rtol=1e-5, atol=1e-6)
    expected = adam(w, gradients, 0.1, decay=0.01)
    np.testing.assert_allclose(run("adamw", gradients, w, l2=0.01), expected, rtol=1e-5, atol=1e-6)


def test_host_adam_against_numpy_and_it_zeroes_gradients(problem: tuple[np.ndarray, list[np.ndarray]]) -> None:
    w, gradients = problem
    np.testing.assert_allclose(run("adam", gradients, w, added_to=True), adam(w, gradients, 0.1), rtol=1e-5, atol=1e-6)
    expected = adam(w, gradients, 0.1, decay=0.01)
    np.testing.assert_allclose(run("adamw", gradients, w, l2=0.01, added_to=True), expected, rtol=1e-5, atol=1e-6)
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optim.get("adam").make([p], Setting(lr=0.1, added_to=True)).step()
    assert not p.grad.any()


def test_lazy_adam_leaves_rows_without_gradient(problem: tuple[np.ndarray, list[np.ndarray]]) -> None:
    w, gradients = problem
    found = run("lazy-adam", gradients, w)
    np.testing.assert_allclose(found, adam(w, gradients, 0.1, lazy=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[3], w[3].astype(np.float32))
    np.testing.assert_array_equal(found[2], run("lazy-adam", gradients[:1], w)[2])
    assert not np.array_equal(run("adam", gradients, w)[2], run("adam", gradients[:1], w)[2]), "dense Adam moves it"


def test_sgd_and_adagrad_against_numpy(problem: tuple[np.ndarray, list[np.ndarray]]) -> None:
    w, gradients = problem
    np.testing.assert_allclose(run("sgd", gradients, w), w - 0.1 * sum(gradients), rtol=1e-5, atol=1e-6)
    total, expected = np.zeros_like(w), w.copy()
    for g in gradients:
        total += g**2
        expected -= 0.1 * g / (np.sqrt(total) + 1e-10)
    np.testing.assert_allclose(run("adagrad", gradients, w), expected, rtol=1e-5, atol=1e-6)


def test_row_adagrad_against_numpy(problem: tuple[np.ndarray, list[np.ndarray]]) -> None:
    w, gradients = problem
    total, expected = np.zeros((5, 1)), w.copy()
    for g in gradients:
        total += (g**2).mean(1, keepdims=True)
        expected -= 0.1 * g / (np.sqrt(total) + 1e-10)
    np.testing.assert_allclose(run("row-adagrad", gradients, w), expected, rtol=1e-5, atol=1e-6)


def test_vectors_are_one_accumulator_an_element() -> None:
    g = [np.array([1.0, 2.0]), np.array([3.0, 0.0])]
    w = np.array([0.5, -0.5])
    expected = w - 0.1 * g[0] / np.abs(g[0]) - 0.1 * g[1] / np.sqrt([10.0, 4.0])
    np.testing.assert_allclose(run("row-adagrad", g, w), expected, rtol=1e-5)


def test_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        optim.get("lion")
    assert math.isfinite(learning_rate(0, lr=0.1, warmup=0))
