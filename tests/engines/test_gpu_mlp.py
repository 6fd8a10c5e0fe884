"""The tower's Triton step against autograd in float64: interpreted, compiled for sm_90, on hardware.

What runs kernels is a function of the device's name, as in test_fused_cuda: interpreted, in a process of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastrec import models
from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.models.parts.dropout import AddressedDropout
from tests.helpers.training import N_ITEMS, N_USERS, make_model
from tests.helpers.triton import assert_ran, compiled, interpret

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed")

ROWS = {"whole tables": 29, "whole items": 11, "rows of the batch": 5}
BF16 = 0.02
"""Error of a parameter's gradient over its norm: the reference rounds activations to 8 bits, not their gradients."""


def make_net(model: str, layers: tuple[int, ...] = (12, 20, 12), dim: int = 12, **sizes: int) -> Any:
    net = make_model(model, dim, init_std=0.7, layers=layers)
    if sizes:
        net = models.build(model, dim=dim, seed=2, init_std=0.3, layers=layers, **sizes)
    with torch.no_grad():
        for bias in [*net.biases, net.bias]:
            bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
    return net


def make_batch(n: int, columns: int, device: str, seed: int = 0, users: int = N_USERS, items: int = N_ITEMS) -> Any:
    """(users, items, positions, epoch); half of the samples ask for item 0, as a popular one's would."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, items, (n, columns), generator=rng, dtype=torch.int32)
    drawn[torch.rand((n, columns), generator=rng) < 0.5] = 0
    positions = torch.arange(n) + 2**33
    batch = torch.randint(0, users, (n,), generator=rng, dtype=torch.int32), drawn, positions, torch.tensor([3])
    return tuple(a.to(device) for a in batch)


def to_bf16(x: Any, *, stored: bool = False) -> Any:
    """The value that bfloat16 holds; its gradient is that of x. Triton's interpreter cuts off what it stores."""
    value = x.detach().float()
    cut = (value.view(torch.int32) & -65536).view(torch.float32)
    return x + ((cut if stored and not x.is_cuda else value.bfloat16()).double() - x.detach())


def in_bf16(net: Any, users: Any, items: Any, drop: Any) -> Any:
    """The model's logits where tables, layers and activations are rounded: else a unit near 0 would differ."""
    u, i, half = users.long(), items.long(), net.widths[0] // 2
    first = to_bf16(net.weights[0])
    x = to_bf16(to_bf16(net.user_mlp)[u] @ first[:, :half].T).unsqueeze(1)
    x = torch.relu(x + to_bf16(to_bf16(net.item_mlp)[i] @ first[:, half:].T) + net.biases[0])
    x = to_bf16(drop(x, 1) if drop else x, stored=True)
    for k in range(1, len(net.weights)):
        x = x @ to_bf16(net.weights[k]).T
        x = torch.relu(to_bf16(x) + net.biases[k])
        x = to_bf16(drop(x, k + 1) if drop else x, stored=True)
    logits = x @ net.h[-x.shape[-1] :] + net.bias
    if hasattr(net, "user_factors"):
        p, q = to_bf16(net.user_factors)[u], to_bf16(net.item_factors)[i]
        logits = logits + (q * (p * net.h[: net.dim]).unsqueeze(1)).sum(-1)
    return logits


def by_autograd(
    net: Any, batch: Any, mlp: Any, drop: Any, loss: str, fraction: float, l2: float, output_l2: float
) -> Any:
    """Mean loss, and gradients of ``fraction`` times it and the L2 term, in float64."""
    users, items, positions, epoch = batch
    wide = models.build(**net.build_args).to(net.bias.device).double()
    wide.load_state_dict(net.state_dict())
    if drop is not None:
        drop.at(epoch if epoch.is_cuda else int(epoch), positions)
        wide.drop = drop
    logits = in_bf16(wide, users, items, drop) if mlp.dtype == torch.bfloat16 else wide(users, items)
    mean = losses.get(loss).mean(logits)
    total = mean
    for name, p in wide.named_parameters():
        ids = {"user": users.repeat_interleave(items.shape[1]), "item": items.reshape(-1)}.get(name[:4])
        squares = (p**2).sum() if ids is None else (p[ids.long()] ** 2).sum() / ids.numel()
        total = total + (l2 if ids is not None or name == "bias" else output_l2) / 2 * squares
    (total * fraction).backward()
    return mean.detach(), {name: p.grad for name, p in wide.named_parameters()}


def make_mlp(net: Any, **options: Any) -> Any:
    from fastrec.engines.minibatch.cuda_mlp import CudaMlp

    return CudaMlp(net, **{"precision": "fp32", **options})


def gradients(mlp: Any, *batch: Any, loss: str, **options: Any) -> Any:
    """The mean loss of a batch, by the loss's name."""
    return mlp.gradients(*batch, loss=losses.get(loss), **options)


def against_autograd(net: Any, batch: Any, mlp: Any, drop: Any, *, norms: float = 0.0, **options: Any) -> None:
    """Gradients are autograd's, element by element or by their norms, and are added to what is there."""
    mean, expected = by_autograd(net, batch, mlp, drop, **options)
    before = {name: p.grad for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad.fill_(0.25)
    found = gradients(mlp, *batch, **options)
    assert (found.shape, found.dtype) == ((), torch.float32)
    torch.testing.assert_close(found.double(), mean, rtol=1e-4 if norms else 1e-5, atol=1e-6)
    for name, p in net.named_parameters():
        assert p.grad is before[name], "the buffers stay"
        gradient = p.grad.double() - 0.25
        if name == "bias" and options["loss"] == "bpr" and not options["l2"]:
            assert gradient.abs().max() < 1e-6, "pairs cancel it"
            continue
        assert expected[name].any(), name
        if norms:
            error, size = float((gradient - expected[name]).norm()), float(expected[name].norm())
            assert error < norms * size + norms**3, (name, error, size)  # BPR's pairs may cancel a bias's
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=f"{name}: {gradient}")


class Cut:
    """Tiles and programs small enough for a tiny batch to have several."""

    def __enter__(self) -> None:
        from fastrec.engines.minibatch import cuda_mlp as module

        self.module, self.was = module, (module.PARTS, module.BLOCKS, dict(module.TILES))
        module.PARTS, module.BLOCKS = 3, 64
        module.TILES.update(last=128, unbend=256)

    def __exit__(self, *_: object) -> None:
        m = self.module
        m.PARTS, m.BLOCKS, m.TILES = self.was


def cases(device: str, precision: str) -> None:
    """Both models and losses, with and without dropout and L2; full batches, then tails of fewer rows than tables."""
    chosen: list[tuple[str, str, int, float, dict[str, Any]]] = [
        ("neumf", "bce", 5, 0.5, {"l2": 0.3, "output_l2": 0.2, "fraction": 0.7}),
        ("mlp", "bpr", 2, 0.5, {"l2": 0.0, "output_l2": 0.1, "fraction": 1.0}),
        ("neumf", "bpr", 5, 0.0, {"l2": 0.0, "output_l2": 0.0, "fraction": 0.5}),
        ("mlp", "bce", 2, 0.0, {"l2": 0.3, "output_l2": 0.0, "fraction": 1.0}),
    ]
    for model, loss, columns, lr, options in chosen:
        for layers in ((12, 20, 12), (8, 6), (4, 9, 20, 5)):
            net, drop = make_net(model, layers).to(device), AddressedDropout(lr, 2**32 - 7)
            with Cut():
                mlp = make_mlp(net, dropout=drop, precision=precision)
                for n in ROWS.values():
                    batch = make_batch(n, columns, device)
                    norms = 0.0 if precision == "fp32" else BF16
                    against_autograd(
                        net, batch, mlp, drop if lr else None, loss=loss, norms=norms, **options
                    )  # fmt: skip
                    whole = mlp._user.whole, mlp._item.whole
                    assert whole == (n >= N_USERS, n * columns >= N_ITEMS), "fewer products than rows"


def fp32(device: str) -> None:
    """Gradients element by element."""
    cases(device, "fp32")


def bf16(device: str) -> None:
    """16-bit activations: close by norm; copies follow their masters at ``refresh`` alone."""
    cases(device, "bf16")
    net = make_net("neumf").to(device)
    mlp = make_mlp(net, precision="bf16")
    assert mlp.dtype == torch.bfloat16
    batch, options = make_batch(61, 5, device), {"loss": "bce", "fraction": 1.0, "l2": 0.0, "output_l2": 0.0}
    before = gradients(mlp, *batch, **options)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 2:
                p.mul_(1.5)
                assert torch.equal(gradients(mlp, *batch, **options), before), name
    mlp.refresh()
    against_autograd(net, batch, mlp, None, norms=BF16, **options)


def parts_of_a_batch(device: str) -> None:
    """Two calls with half the share are one; the default cuts, a row wider than a program's blocks, another layout."""
    net, drop = make_net("neumf", (12, 300, 12), 70).to(device), AddressedDropout(0.3, 5)
    mlp = make_mlp(net, dropout=drop)
    options: dict[str, Any] = {"loss": "bce", "l2": 0.3, "output_l2": 0.2}
    for columns, n in ((2, 40), (5, 9), (2, 50)):
        batch = make_batch(n, columns, device)
        against_autograd(net, batch, mlp, drop, fraction=0.5, **options)
        once = [p.grad - 0.25 for p in net.parameters()]
        gradients(mlp, *batch, fraction=0.5, **options)
        for p, half in zip(net.parameters(), once):
            torch.testing.assert_close(p.grad - 0.25, 2 * half, rtol=1e-4, atol=1e-6)
    batch = make_batch(50, 2, device)
    another = *batch[:3], batch[3] + 1
    found = [gradients(mlp, *b, fraction=1.0, **options) for b in (batch, another, batch)]
    assert found[0] == found[2] != found[1], "each epoch drops its own"
    with pytest.raises(ConfigError, match="has no address"):
        gradients(mlp, *make_batch(1, 22000, device), fraction=1.0, **options)


def not_a_number(device: str) -> None:
    """A ReLU that took NaN for 0 would hide a run that diverges."""
    batch = make_batch(30, 2, device)
    for name in ("item_mlp", "biases.0", "biases.1"):
        net = make_net("mlp").to(device)
        dict(net.named_parameters())[name].detach().fill_(float("nan"))
        mlp = make_mlp(net, dropout=AddressedDropout(0.5, 1))
        assert gradients(mlp, *batch, loss="bce", fraction=1.0, l2=0.0, output_l2=0.0).isnan(), name


CHECKS = ("fp32", "bf16", "parts_of_a_batch", "not_a_number")


@pytest.mark.timeout(900)
def test_under_the_interpreter() -> None:
    assert_ran(interpret("tests.engines.test_gpu_mlp", *CHECKS))


NVIDIA: dict[str, Any] = {"layers": (256, 256, 128, 64), "dim": 64, "n_users": 6040, "n_items": 3706}


def replayed(device: str) -> None:
    """A captured call gives, replayed on another batch and epoch, what a call gives."""
    from fastrec.batches.device import open_device

    seam, options = open_device(device), {"loss": "bce", "fraction": 0.5, "l2": 0.3, "output_l2": 0.2}
    net = make_net("neumf", (12, 20, 12)).to(device)
    mlp = make_mlp(net, dropout=AddressedDropout(0.5, 3), precision="bf16")
    batch, mean = make_batch(61, 5, device), torch.zeros((), device=device)
    other = *make_batch(61, 5, device, seed=1)[:3], torch.tensor([7], device=device)

    def work() -> None:
        mean.copy_(gradients(mlp, *batch, **options))

    seam.warm_up(work)
    replay = seam.capture(work)
    for source in (batch, other):
        for theirs, static in zip(source, batch):
            static.copy_(theirs)
        found = []
        for go in (replay, work):
            for p in net.parameters():
                p.grad.zero_()
            go()
            found.append([mean.clone(), *(p.grad.clone() for p in net.parameters())])
        for one, two in zip(*found):
            assert float((one - two).norm()) < 5e-3 * float(two.norm()), "but for sums in another order"


def realistic(device: str) -> None:
    """Tens of thousands of rows, one item in half of the samples; then fewer rows than users."""
    for precision in ("fp32", "bf16"):
        net, drop = make_net("neumf", **NVIDIA).to(device), AddressedDropout(0.5, 3)
        mlp = make_mlp(net, dropout=drop, precision=precision)
        for n in (20_000, 1999):
            batch = make_batch(n, 5, device, users=6040, items=3706)
            norms = BF16 if precision == "bf16" else 5e-3  # a few of the 45 million units pass 0 by rounding
            against_autograd(net, batch, mlp, drop, norms=norms, loss="bce", fraction=1.0, l2=0.1, output_l2=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", [*CHECKS, "replayed", "realistic"])
def test_on_hardware(check: str) -> None:
    globals()[check]("cuda")


def test_what_it_does_not_serve() -> None:
    from fastrec.engines.minibatch.cuda_mlp import CudaMlp

    with pytest.raises(ConfigError, match="precision = 'fp16'"):
        CudaMlp(make_model("mlp"), precision="fp16")


ACTIVATIONS = ("u", "v", "x", "dx", "p", "q")
KINDS = {
    **dict.fromkeys(("users", "items"), "*i32"), "positions": "*i64", "epoch": "*i64", "sums": "*fp64", "limit": "i64",
    **dict.fromkeys(("bias", "h", "h_gmf", "user_grad", "item_grad", "parts", "user_sums", "item_sums"), "*fp32"),
    **dict.fromkeys(("weight", "scale"), "fp32"),
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "TAG": 7, "DROP": True, "COLUMNS": 5, "DIM": 64, "DEEP": 64, "PARTS": 2048, "BPR": False, "GMF": True,
    "READY": False, "LAYER": 2, "WIDE": 128, "WIDTH": 128, "BLOCKS": 32,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "neumf": {},
    "mlp-bpr": {"GMF": False, "BPR": True, "DIM": 0, "DEEP": 16, "DROP": False, "READY": True},
    "odd": {"WIDTH": 300, "WIDE": 512, "BLOCKS": 128, "DIM": 12, "DEEP": 16},
}
SIZES = {"first": 512, "bend": 512, "scatter": 512, "last": 8, "unbend": 16}


@pytest.mark.parametrize("activations", ["*fp32", "*bf16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", SIZES)
def test_compiles_ahead_of_time_for_sm_90(kernel: str, form: str, activations: str) -> None:
    from fastrec.engines.minibatch import cuda_mlp_kernels as mlp_kernels

    fn = getattr(mlp_kernels, f"{kernel}_kernel")
    constants = {**CONSTANTS, **FORMS[form], "SIZE": SIZES[kernel]}
    constants = {k: v for k, v in constants.items() if k in fn.arg_names}
    signature = {k: activations if k in ACTIVATIONS else KINDS.get(k, "i32") for k in fn.arg_names}
    made = compiled(fn, signature, constants)
    if kernel in ("first", "bend", "scatter"):
        assert made.metadata.shared == 0, "a thread draws what it needs; nothing passes between them"
