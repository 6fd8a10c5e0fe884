"""Models by kernels of their own on a CUDA device: interpreted, compiled for sm_90, on hardware.

Checks are functions of the device's name, run as in ``test_fused_cuda``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrec.batches.device import HostDevice
from fastrec.models import losses
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, N_USERS, make_engine, make_model, masters_keep_small_updates
from tests.helpers.triton import assert_ran, compiled, interpret

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed")


class Capturing(HostDevice):
    """The host in place of a CUDA device: its steps are worth capturing, so that kernels are preferred."""

    captures = True


def seam(device: str) -> Any:
    return Capturing() if device == "cpu" else device


def reference(
    model: Any, users: Any, items: Any, loss: str, fraction: float, l2: float, output_l2: float
) -> tuple[Any, Any]:
    """Mean loss and the gradients of ``fraction`` times (it and its L2), by autograd on the definition, in float64."""
    model = model.double()
    logits = model(users, items)
    mean = losses.get(loss).mean(logits)
    penalty = l2 / 2 * model.bias.square().sum()
    for name, p in model.named_parameters():
        ids = users.unsqueeze(1).expand(items.shape) if name.startswith("user_") else items
        if name.startswith(("user_", "item_")):
            penalty = penalty + l2 / 2 * p[ids.reshape(-1).long()].square().sum() / items.numel()
        elif name == "h":
            penalty = penalty + output_l2 / 2 * p.square().sum()
    (fraction * (mean + penalty)).backward()
    return mean.item(), {name: p.grad for name, p in model.named_parameters()}


def gradients(device: str) -> None:
    """Loss and gradients are those of the definition, are added, and weigh as their share; bf16 rounds rows alone."""
    from fastrec.engines.minibatch.cuda_factors import CudaFactors

    rng = np.random.default_rng(3)
    epoch = torch.zeros(1, dtype=torch.int64, device=device)
    for n, (kind, loss, dim, columns, bf16) in enumerate((
        ("gmf", "bce", 20, 5, False), ("gmf", "bpr", 4, 2, False), ("mf", "bce", 4, 3, False),
        ("mf", "bpr", 20, 5, False), ("gmf", "bce", 20, 5, True), ("mf", "bpr", 17, 4, True),
    )):  # fmt: skip
        rows = (1, 70, 131)[n % 3]
        users = torch.from_numpy(rng.integers(0, N_USERS, rows).astype(np.int32)).to(device)
        items = torch.from_numpy(rng.integers(0, N_ITEMS, (rows, columns)).astype(np.int32)).to(device)
        made, twin = (make_model(kind, dim, init_std=0.5).to(device) for _ in range(2))
        with torch.no_grad():
            for p, q in zip(made.parameters(), twin.parameters()):
                p.add_(0.1 * torch.randn_like(p))
                q.copy_(p.bfloat16().float() if bf16 and p.dim() == 2 else p)
        kernels = CudaFactors(made, precision="bf16" if bf16 else "fp32")
        assert kernels.dtype == (torch.bfloat16 if bf16 else torch.float32)
        options = {"fraction": 0.6, "l2": 0.3, "output_l2": 0.7}
        expected, grads = reference(twin, users, items, loss, **options)
        for times in (1, 2):
            found = kernels.gradients(users, items, users.long(), epoch, loss=losses.get(loss), **options)
            assert found.item() == pytest.approx(expected, rel=1e-5)
            for name, p in made.named_parameters():
                torch.testing.assert_close(p.grad.double(), times * grads[name], rtol=1e-4, atol=1e-6, msg=name)


def adam(device: str) -> None:
    """Adam and AdamW of the definition in float64, with rates of two groups; gradients are zero afterwards."""
    from fastrec.optim.cuda_adam import DeviceAdam

    rng = np.random.default_rng(4)
    for decay in (0.0, 0.1):
        start = [rng.normal(size=shape) for shape in ((40, 33), (7,))]
        made = [torch.tensor(w, dtype=torch.float32, device=device, requires_grad=True) for w in start]
        for p in made:
            p.grad = torch.zeros_like(p)
        lr = torch.tensor(0.05, device=device)
        groups = [{"params": [made[0]], "lr": lr}, {"params": [made[1]], "lr": 0.2}]
        copies = {made[0]: made[0].detach().bfloat16()}
        optimizer = DeviceAdam(groups, weight_decay=decay, copies=copies)
        m, v = [0.0, 0.0], [0.0, 0.0]
        for t in range(1, 8):
            lr.fill_(0.05 / t)
            for k, p in enumerate(made):
                g = rng.normal(size=start[k].shape) * 10.0 ** (k - 2)
                p.grad.add_(torch.from_numpy(g).to(p))
                m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g * g
                group_lr = (0.05 / t, 0.2)[k]
                start[k] *= 1 - group_lr * decay
                start[k] -= group_lr * m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
            optimizer.step()
            for w, p in zip(start, made):
                np.testing.assert_allclose(p.detach().cpu().numpy(), w, rtol=2e-5, atol=1e-6)
                assert not p.grad.any()
        rounded = {} if device == "cpu" else {"rtol": 0.0, "atol": 0.0}  # the interpreter cuts bits off
        torch.testing.assert_close(copies[made[0]], made[0].detach().bfloat16(), **rounded)
        assert set(optimizer.state[made[0]]) == {"step", "exp_avg", "exp_avg_sq"}
        assert optimizer.state[made[0]]["step"].item() == 7


TRAINED: list[dict[str, Any]] = [
    {"model": "gmf", "l2": 0.1, "output_l2": 0.3, "output_lr": 0.1},
    {"model": "mf", "loss": "bpr", "optimizer": "adamw", "weight_decay": 0.1},
    {"model": "gmf", "optimizer": "sgd", "n_negatives": 6, "negatives": 3},
    {"model": "mf", "optimizer": "row-adagrad", "accumulate": 2, "l2": 0.1},
    {"model": "gmf", "optimizer": "lazy-adam"},
    {"model": "neumf", "dropout": 0.3, "l2": 0.1, "output_l2": 0.3, "output_lr": 0.1},
    {"model": "mlp", "loss": "bpr", "optimizer": "sgd", "accumulate": 2},
]


def training(device: str) -> None:
    """The torch engine's weights after an epoch and its tail are the CPU engine's, graph, cut and state included."""
    for options in TRAINED:
        engine, host = make_engine(device=seam(device), **options), make_engine(**options)
        graph = "" if "accumulate" in options else ", graph"
        assert engine.describe()["step"] == f"kernels{graph}"
        assert host.describe()["step"] == "kernels"
        cursor = engine.advance(Cursor(0, 0), 5).cursor
        tensors, meta = engine.state()
        engine.close()
        engine = make_engine(device=seam(device), **options)
        engine.load_state({k: v.clone() for k, v in tensors.items()}, meta)
        found, expected = engine.advance(cursor, 100), host.advance(Cursor(0, 0), 5) and host.advance(cursor, 100)
        assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-4)
        for name, value in host.model.state_dict().items():
            if name in ("bias", "user_bias") and options.get("loss") == "bpr":
                continue  # they cancel: on the CPU a gradient of rounding alone, which Adam blows up to a step
            found_value = engine.model.state_dict()[name].cpu()
            torch.testing.assert_close(found_value, value, rtol=1e-3, atol=1e-5, msg=f"{name} of {options}")
        engine.close()
        host.close()


def bf16(device: str) -> None:
    """16-bit rows beside fp32 masters: small updates add up, training is nearly fp32's."""
    engine = make_engine("gmf", device=seam(device), precision="bf16", optimizer="sgd", lr=lambda _: 1e-4)
    assert engine.describe()["gathered"] == "bfloat16"
    masters_keep_small_updates(engine)
    engine = make_engine("mf", device=seam(device), precision="bf16", optimizer="sgd", lr=lambda _: 5.0)
    start = engine.model.item_factors.detach().clone()
    engine.advance(Cursor(0, 0), 3)
    for master, copy in engine._step._eager._kernels.copies.items():
        torch.testing.assert_close(copy.float(), master.detach(), rtol=2**-7, atol=1e-6)
    assert (engine.model.item_factors - start).abs().max() > 0.01, "far enough for a copy left behind to show"
    engine.close()
    sums = []
    for precision in ("fp32", "bf16"):
        engine = make_engine("gmf", device=seam(device), precision=precision, lr=lambda _: 0.05)
        sums.append([engine.advance(Cursor(e, 0), 100).loss_sum for e in range(3)])
        engine.close()
    np.testing.assert_allclose(sums[1], sums[0], rtol=0.02)
    assert sums[0] != sums[1]


CHECKS = ("gradients", "adam", "training", "bf16")


@pytest.mark.timeout(900)
def test_under_the_interpreter() -> None:
    assert_ran(interpret("tests.engines.test_gpu_factors", *CHECKS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS)
def test_on_hardware(check: str) -> None:
    globals()[check]("cuda")


@pytest.mark.parametrize("form", ["gmf-bce", "gmf-bce-bf16", "mf-bpr"])
def test_factors_compile_ahead_of_time_for_sm_90(form: str) -> None:
    from fastrec.engines.minibatch.cuda_factors import factor_kernel

    words = form.split("-")
    signature = dict.fromkeys(factor_kernel.arg_names, "*fp32") | dict.fromkeys(("users", "items"), "*i32")
    signature |= {"losses": "*fp64", **dict.fromkeys(("n_rows", "per_program"), "i32")}
    signature |= dict.fromkeys(("mean", "fraction", "decay", "l2", "output_l2"), "fp32")
    if "bf16" in words:
        signature |= dict.fromkeys(("p", "q"), "*i16")
    constants = {"BPR": "bpr" in words, "GMF": "gmf" in words, "BF16": "bf16" in words}
    constants |= {"DIM": 64, "WIDTH": 64, "COLUMNS": 5, "SIZE": 16}
    ptx = compiled(factor_kernel, signature, constants).asm["ptx"]
    assert "add.v4.f32" in ptx, "four gradients go with one atomic"


def test_adam_compiles_ahead_of_time_for_sm_90() -> None:
    from fastrec.optim.cuda_adam import adam_kernel

    signature = dict.fromkeys(adam_kernel.arg_names, "fp32") | {"n": "i32"}
    signature |= dict.fromkeys(("p", "m", "v", "g", "step", "lr_at"), "*fp32") | {"copy": "*bf16"}
    compiled(adam_kernel, signature, {"COPIED": True, "SIZE": 1024})
