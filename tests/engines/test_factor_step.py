"""The hand-written MF and GMF step against autograd in float64."""

import numpy as np
import pytest
import torch

from fastrec.engines.minibatch.cpu_factors import CpuFactors
from fastrec.models.losses.bce import bce, bce_with_gradient
from tests.helpers.training import make_model, make_stream


@pytest.mark.parametrize("model", ["mf", "gmf"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_gradients_agree_with_autograd_in_float64(model: str, l2: float) -> None:
    net = make_model(model, init_std=0.7).double()
    batch = make_stream().read(0, 0, 40)
    users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items)
    bce(net(users, items)).backward()
    expected = {k: p.grad.clone() for k, p in net.named_parameters()}
    n = items.numel()
    if l2:
        with torch.no_grad():
            for name, p in net.named_parameters():
                ids = {"user": users.repeat_interleave(items.shape[1]), "item": items.reshape(-1)}.get(name[:4])
                uses = (
                    torch.bincount(ids, minlength=len(p)).double()
                    if ids is not None
                    else torch.full((len(p),), n).double()
                )
                expected[name] += l2 / n * (uses.unsqueeze(1) if p.dim() == 2 else uses) * p
    net.zero_grad(set_to_none=True)
    step = CpuFactors(net)
    logits = step.logits(batch.users, batch.items)
    torch.testing.assert_close(logits, net(users, items).detach(), rtol=1e-12, atol=1e-12)
    _, gradient = bce_with_gradient(logits)
    step.backward(batch.users, batch.items, gradient, l2 / n)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("model", ["mf", "gmf"])
def test_float32_gradients_are_close_to_float64(model: str) -> None:
    net = make_model(model, init_std=0.7)
    batch = make_stream().read(0, 0, 100)
    found = {}
    for kind in (net, make_model(model, init_std=0.7).double()):
        step = CpuFactors(kind)
        _, gradient = bce_with_gradient(step.logits(batch.users, batch.items))
        step.backward(batch.users, batch.items, gradient, 0.01)
        found[kind.bias.dtype] = {k: p.grad.double() for k, p in kind.named_parameters()}
    for name, wide in found[torch.float64].items():
        torch.testing.assert_close(found[torch.float32][name], wide, rtol=1e-5, atol=1e-6, msg=name)


def test_zero_forgets_the_step_before() -> None:
    net = make_model("gmf")
    batch, step = make_stream().read(0, 0, 10), CpuFactors(net)
    step.backward(batch.users, batch.items, step.logits(batch.users, batch.items), 0.0)
    step.zero()
    assert all(not p.grad.any() for p in net.parameters())
    assert np.isfinite(net.bias.item())
