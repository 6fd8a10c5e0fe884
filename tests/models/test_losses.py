"""Losses and gradients against float64 NumPy, and gradient in every row."""

import numpy as np
import pytest
import torch

from fastrec import models
from fastrec.models.losses.bce import bce
from fastrec.models.losses.bpr import bpr
from fastrec.models.losses.inbatch_softmax import sampled_softmax
from tests.helpers.training import N_ITEMS, N_USERS, make_model


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


LOGITS = np.random.default_rng(3).normal(0, 3, (7, 5))


def test_bce_against_numpy() -> None:
    labels = np.zeros_like(LOGITS)
    labels[:, 0] = 1
    p = sigmoid(LOGITS)
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    assert bce(torch.from_numpy(LOGITS)).item() == pytest.approx(expected, rel=1e-12)


def test_bce_stays_finite_on_large_logits() -> None:
    assert bce(torch.tensor([[1e4, -1e4]])).item() == 0.0
    assert bce(torch.tensor([[-1e4, 1e4]])).item() == pytest.approx(1e4)


def test_bpr_against_numpy() -> None:
    expected = -np.log(sigmoid(LOGITS[:, :1] - LOGITS[:, 1:])).mean()
    assert bpr(torch.from_numpy(LOGITS)).item() == pytest.approx(expected, rel=1e-12)


def test_softmax_against_numpy_with_correction_and_mask() -> None:
    logq = np.random.default_rng(4).normal(0, 1, (7, 4))
    masked = np.random.default_rng(5).random((7, 4)) < 0.3
    masked[0] = True
    others = np.where(masked, 0.0, np.exp(LOGITS[:, 1:] - logq)).sum(1)
    expected = -np.log(np.exp(LOGITS[:, 0]) / (np.exp(LOGITS[:, 0]) + others)).mean()
    found = sampled_softmax(torch.from_numpy(LOGITS), torch.from_numpy(logq), torch.from_numpy(masked))
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("model", models.names())
@pytest.mark.parametrize("loss", [bce, bpr, sampled_softmax])
def test_gradients_agree_with_finite_differences_in_float64(model: str, loss: object) -> None:
    net = make_model(model, init_std=0.7).double()
    users = torch.tensor([0, 5, 5, 22], dtype=torch.int32)
    items = torch.tensor([[0, 30, 7], [1, 1, 2], [3, 4, 5], [30, 29, 28]], dtype=torch.int32)
    value = lambda: loss(net(users, items))  # type: ignore[operator]  # noqa: E731
    value().backward()
    rng = np.random.default_rng(0)
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        direction = torch.from_numpy(rng.normal(size=tuple(p.shape)))
        with torch.no_grad():
            p.add_(direction, alpha=1e-5)
            above = value().item()
            p.add_(direction, alpha=-2e-5)
            below = value().item()
            p.add_(direction, alpha=1e-5)
        assert (above - below) / 2e-5 == pytest.approx((p.grad * direction).sum().item(), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("model", models.names())
def test_every_parameter_row_receives_gradient(model: str) -> None:
    """HugeCTR's sample trained 15 of 16 dimensions; here every element of every table moves."""
    net = make_model(model)
    users = torch.arange(N_USERS, dtype=torch.int32).repeat_interleave(2)
    items = torch.from_numpy(np.random.default_rng(0).permutation(np.arange(46 * 5) % N_ITEMS).astype(np.int32))
    bce(net(users, items.reshape(46, 5))).backward()
    for name, p in net.named_parameters():
        if name.startswith(("weights", "biases")):
            continue  # ReLU may hold single units at zero
        assert bool((p.grad != 0).all()), name
