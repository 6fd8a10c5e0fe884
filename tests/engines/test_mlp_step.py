"""The hand-written MLP and NeuMF step against autograd in float64."""

from typing import Any

import numpy as np
import pytest
import torch

from fastrec.engines.minibatch import cpu_mlp as mlp_step
from fastrec.engines.minibatch.cpu_mlp import CpuMlp
from fastrec.models.losses.bce import bce, bce_with_gradient
from fastrec.models.parts.dropout import AddressedDropout
from tests.helpers.training import make_model, make_stream


def by_autograd(net: Any, batch: Any, l2: float, drop: AddressedDropout | None) -> tuple[torch.Tensor, dict[str, Any]]:
    """Logits, and gradients of mean BCE and l2 / 2 times the squares of what each sample uses, h and layers twice."""
    users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items)
    if drop is not None:
        drop.at(3, torch.from_numpy(batch.positions))
        net.drop = drop
    logits = net(users, items)
    net.drop = None
    loss = bce(logits)
    for name, p in net.named_parameters():
        ids = {"user": users.repeat_interleave(items.shape[1]), "item": items.reshape(-1)}.get(name[:4])
        squares = (p**2).sum() if ids is None else (p[ids.long()] ** 2).sum() / ids.numel()
        loss = loss + (2 if name.startswith(("h", "weights", "biases")) else 1) * l2 / 2 * squares
    loss.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad(set_to_none=True)
    return logits.detach(), found


def by_kernels(net: Any, batch: Any, l2: float, drop: AddressedDropout | None) -> tuple[torch.Tensor, dict[str, Any]]:
    step = CpuMlp(net, drop)
    n = batch.items.size
    step.begin(batch.items)
    found = []
    for lo, hi in step.blocks():
        logits = step.logits(batch.users[lo:hi], lo, hi, 3, batch.positions[lo:hi])
        found.append(logits.clone())
        _, gradient = bce_with_gradient(logits)
        step.backward(batch.users[lo:hi], lo, hi, gradient * ((hi - lo) / len(batch.users)), l2 / n, 2 * l2 / n)
    step.finish(l2 / n, 2 * l2 / n)
    return torch.cat(found), {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("rows", [4, 60], ids=["rows of the batch", "whole tables"])
@pytest.mark.parametrize("model", ["mlp", "neumf"])
@pytest.mark.parametrize("options", [
    {"l2": 0.0}, {"l2": 0.3}, {"l2": 0.3, "drop": 0.4}, {"l2": 0.1, "drop": 0.4, "layers": (6, 5)},
])  # fmt: skip
def test_gradients_agree_with_autograd_in_float64(
    model: str, rows: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_step, "BLOCK_BYTES", 8 * 5 * 28 * 7)  # 7 rows a block, or a few more
    net = make_model(model, init_std=0.7, layers=options.get("layers", ())).double()
    with torch.no_grad():
        for bias in [*net.biases, net.bias]:
            bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    batch = make_stream().read(0, 0, rows)
    drop = AddressedDropout(options["drop"], 9) if "drop" in options else None
    logits, expected = by_autograd(net, batch, options["l2"], drop)
    found, gradients = by_kernels(net, batch, options["l2"], drop)
    torch.testing.assert_close(found, logits, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients.items():
        assert expected[name].any(), name
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("model", ["mlp", "neumf"])
def test_float32_gradients_are_close_to_float64(model: str) -> None:
    batch = make_stream().read(0, 0, 100)
    found = [by_kernels(net, batch, 0.01, None)[1] for net in (make_model(model), make_model(model).double())]
    for name, wide in found[1].items():
        torch.testing.assert_close(found[0][name].double(), wide, rtol=1e-4, atol=1e-6, msg=name)


def test_a_nan_passes_through_every_layer() -> None:
    """A ReLU that took NaN for 0 would hide a run that diverges."""
    net = make_model("mlp")
    batch = make_stream().read(0, 0, 10)
    for table in (net.item_mlp, net.biases[1]):
        before = table.detach().clone()
        with torch.no_grad():
            table.fill_(np.nan)
        step = CpuMlp(net)
        step.begin(batch.items)
        assert step.logits(batch.users, 0, 10).isnan().all()
        with torch.no_grad():
            table.copy_(before)
