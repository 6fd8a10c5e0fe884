"""The tower's Triton step against autograd in float64: interpreted, compiled for sm_90, on hardware.

What runs kernels is a function of the device's name, as in test_fused_cuda: interpreted, in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from training_helpers import N_ITEMS, N_USERS, make_model

from fastrec.errors import ConfigError
from fastrec.jit import available_threads
from fastrec.models import losses, nets
from fastrec.models.dropout import AddressedDropout

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).resolve().parent.parent
ROWS = {"whole tables": 61, "whole items": 11, "rows of the batch": 5}
BF16 = 0.02
"""Error of a parameter's gradient over its norm: the reference rounds activations to 8 bits, not their gradients."""


def make_net(model: str, layers: tuple[int, ...] = (12, 20, 12), dim: int = 12, **sizes: int) -> Any:
    net = make_model(model, dim, init_std=0.7, layers=layers)
    if sizes:
        net = nets.build(model, dim=dim, seed=2, init_std=0.3, layers=layers, **sizes)
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


def in_bf16(net: Any, users: Any, items: Any, drop: Any, fused: bool) -> Any:
    """The model's logits where tables, layers and activations are rounded: else a unit near 0 would differ."""
    u, i, half = users.long(), items.long(), net.widths[0] // 2
    first = to_bf16(net.weights[0])
    x = to_bf16(to_bf16(net.user_mlp)[u] @ first[:, :half].T).unsqueeze(1)
    x = torch.relu(x + to_bf16(to_bf16(net.item_mlp)[i] @ first[:, half:].T) + net.biases[0])
    x = to_bf16(drop(x, 1) if drop else x, stored=True)
    for k in range(1, len(net.weights)):
        x = x @ to_bf16(net.weights[k]).T
        x = torch.relu((x if fused else to_bf16(x)) + net.biases[k])
        x = to_bf16(drop(x, k + 1) if drop else x, stored=True)
    logits = x @ net.h[-x.shape[-1] :] + net.bias
    if hasattr(net, "user_factors"):
        p, q = to_bf16(net.user_factors)[u], to_bf16(net.item_factors)[i]
        logits = logits + (q * (p * net.h[: net.dim]).unsqueeze(1)).sum(-1)
    return logits


def by_autograd(net: Any, batch: Any, tower: Any, drop: Any, loss: str, share: float, l2: float, l2_h: float) -> Any:
    """Mean loss, and gradients of ``share`` times it and the L2 term, in float64."""
    users, items, positions, epoch = batch
    wide = nets.build(**net.build_args).to(net.bias.device).double()
    wide.load_state_dict(net.state_dict())
    if drop is not None:
        drop.at(epoch if epoch.is_cuda else int(epoch), positions)
        wide.drop = drop
    bf16, fused = tower.dtype == torch.bfloat16, tower._fused
    mean = getattr(losses, loss)(in_bf16(wide, users, items, drop, fused) if bf16 else wide(users, items))
    total = mean
    for name, p in wide.named_parameters():
        ids = {"user": users.repeat_interleave(items.shape[1]), "item": items.reshape(-1)}.get(name[:4])
        squares = (p**2).sum() if ids is None else (p[ids.long()] ** 2).sum() / ids.numel()
        total = total + (l2 if ids is not None or name == "bias" else l2_h) / 2 * squares
    (total * share).backward()
    return mean.detach(), {name: p.grad for name, p in wide.named_parameters()}


def make_tower(net: Any, **options: Any) -> Any:
    from fastrec.models.gpu_tower import GpuTower

    assert GpuTower.serves(net)
    return GpuTower(net, **{"precision": "fp32", **options})


def beside_autograd(net: Any, batch: Any, tower: Any, drop: Any, *, norms: float = 0.0, **options: Any) -> None:
    """Gradients are autograd's, element by element or by their norms, and are added to what is there."""
    mean, expected = by_autograd(net, batch, tower, drop, **options)
    before = {name: p.grad for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad.fill_(0.25)
    found = tower.gradients(*batch, **options)
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
    """Tiles, programs and chunks small enough for a tiny batch to have several."""

    def __enter__(self) -> None:
        from fastrec.models import gpu_tower as module

        self.module, self.was = module, (module.PARTS, module.CHUNK, module.BLOCKS, dict(module.TILES))
        module.PARTS, module.CHUNK, module.BLOCKS = 3, 24, 32
        module.TILES.update(last=64, unbend=128, segments=128)

    def __exit__(self, *_: object) -> None:
        m = self.module
        m.PARTS, m.CHUNK, m.BLOCKS, m.TILES = self.was


def cases(device: str, scatter: str, precision: str = "fp32", *, fused: bool = False) -> None:
    """Both models and losses, with and without dropout and L2; full batches, then tails of fewer rows than tables."""
    chosen: list[tuple[str, str, int, float, dict[str, Any]]] = [
        ("neumf", "bce", 5, 0.5, {"l2": 0.3, "l2_h": 0.2, "share": 0.7}),
        ("mlp", "bpr", 2, 0.5, {"l2": 0.0, "l2_h": 0.1, "share": 1.0}),
        ("neumf", "bpr", 5, 0.0, {"l2": 0.0, "l2_h": 0.0, "share": 0.5}),
        ("mlp", "bce", 2, 0.0, {"l2": 0.3, "l2_h": 0.0, "share": 1.0}),
    ]
    for model, loss, columns, rate, options in chosen:
        for layers in ((12, 20, 12), (4, 9, 20, 5)) if fused else ((12, 20, 12), (8, 6), (4, 9, 20, 5)):
            net, drop = make_net(model, layers).to(device), AddressedDropout(rate, 2**32 - 7)
            with Cut():
                tower = make_tower(net, dropout=drop, scatter=scatter, precision=precision, fused=fused)
                for n in list(ROWS.values())[: 2 if fused else 3]:
                    batch = make_batch(n, columns, device)
                    norms = 0.0 if precision == "fp32" else BF16
                    beside_autograd(
                        net, batch, tower, drop if rate else None, loss=loss, norms=norms, **options
                    )  # fmt: skip
                    whole = tower._user.whole, tower._item.whole
                    assert whole == (n >= N_USERS, n * columns >= N_ITEMS), "fewer products than rows"


def sort(device: str) -> None:
    """Rows' gradients summed in sorted order."""
    cases(device, "sort")


def atomic(device: str) -> None:
    """Rows' gradients added atomically."""
    cases(device, "atomic")


def bf16(device: str) -> None:
    """16-bit activations: close by norm; copies follow their masters at ``refresh`` alone."""
    cases(device, "sort", "bf16")
    net = make_net("neumf").to(device)
    tower = make_tower(net, precision="bf16")
    assert tower.dtype == torch.bfloat16
    batch, options = make_batch(61, 5, device), {"loss": "bce", "share": 1.0, "l2": 0.0, "l2_h": 0.0}
    before = tower.gradients(*batch, **options)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 2:
                p.mul_(1.5)
                assert torch.equal(tower.gradients(*batch, **options), before), name
    tower.refresh()
    beside_autograd(net, batch, tower, None, norms=BF16, **options)


def fused(device: str) -> None:
    """Products with what follows them in one kernel: widths of several tiles and slices, and none that fills one."""
    from fastrec.models import gpu_tower_products as products

    was = products.TALL, products.BROAD, products.SLICE
    products.BROAD = products.SLICE = 16
    products.TALL = 16 if device == "cpu" else 128  # Hopper multiplies 64 rows a warp group
    for precision in ("fp32", "bf16"):
        cases(device, "sort", precision, fused=True)
    products.TALL, products.BROAD, products.SLICE = was


def parts_of_a_batch(device: str) -> None:
    """Two calls with half the share are one; the default cuts, a row wider than a program's blocks, another layout."""
    net, drop = make_net("neumf", (12, 300, 12), 70).to(device), AddressedDropout(0.3, 5)
    tower = make_tower(net, dropout=drop)
    options: dict[str, Any] = {"loss": "bce", "l2": 0.3, "l2_h": 0.2}
    for columns, n in ((2, 40), (5, 9), (2, 50)):
        batch = make_batch(n, columns, device)
        beside_autograd(net, batch, tower, drop, share=0.5, **options)
        once = [p.grad - 0.25 for p in net.parameters()]
        tower.gradients(*batch, share=0.5, **options)
        for p, half in zip(net.parameters(), once):
            torch.testing.assert_close(p.grad - 0.25, 2 * half, rtol=1e-4, atol=1e-6)
    batch = make_batch(50, 2, device)
    another = *batch[:3], batch[3] + 1
    found = [tower.gradients(*b, share=1.0, **options) for b in (batch, another, batch)]
    assert found[0] == found[2] != found[1], "each epoch drops its own"
    with pytest.raises(ConfigError, match="has no address"):
        tower.gradients(*make_batch(1, 22000, device), share=1.0, **options)


def not_a_number(device: str) -> None:
    """A ReLU that took NaN for 0 would hide a run that diverges."""
    batch = make_batch(30, 2, device)
    for name, fused in (("item_mlp", False), ("biases.1", False), ("biases.0", True), ("biases.1", True)):
        net = make_net("mlp").to(device)
        dict(net.named_parameters())[name].detach().fill_(float("nan"))
        tower = make_tower(net, dropout=AddressedDropout(0.5, 1), fused=fused)
        assert tower.gradients(*batch, loss="bce", share=1.0, l2=0.0, l2_h=0.0).isnan(), name


CHECKS = ("sort", "atomic", "bf16", "fused", "parts_of_a_batch", "not_a_number")


def interpret(check: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    code = f"import test_gpu_tower as t; t.{check}('cpu'); print('all of it')"
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[dict[str, Any]]:
    """Every check begun, a processor each."""
    with ThreadPoolExecutor(available_threads()) as pool:
        yield {check: pool.submit(interpret, check) for check in CHECKS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", CHECKS)
def test_under_the_interpreter(check: str, interpreted: dict[str, Any]) -> None:
    done = interpreted[check].result()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("all of it")


NVIDIA: dict[str, Any] = {"layers": (256, 256, 128, 64), "dim": 64, "n_users": 6040, "n_items": 3706}


def replayed(device: str) -> None:
    """A captured call gives, replayed on another batch and epoch, what a call gives."""
    from fastrec.training.device import open_device

    seam, options = open_device(device), {"loss": "bce", "share": 0.5, "l2": 0.3, "l2_h": 0.2}
    for scatter, fused in (("sort", False), ("atomic", True)):
        net = make_net("neumf", (12, 20, 12)).to(device)
        tower = make_tower(net, dropout=AddressedDropout(0.5, 3), scatter=scatter, precision="bf16", fused=fused)
        batch, mean = make_batch(61, 5, device), torch.zeros((), device=device)
        other = *make_batch(61, 5, device, seed=1)[:3], torch.tensor([7], device=device)

        def work(tower: Any = tower, batch: Any = batch, mean: Any = mean) -> None:
            mean.copy_(tower.gradients(*batch, **options))

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
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def realistic(device: str) -> None:
    """Tens of thousands of rows, one item in half of the samples; then fewer rows than users."""
    for precision, scatter, fused in (
        ("fp32", "sort", False),
        ("fp32", "atomic", False),
        ("bf16", "sort", False),
        ("bf16", "atomic", True),
        ("bf16", "sort", True),
    ):
        net, drop = make_net("neumf", **NVIDIA).to(device), AddressedDropout(0.5, 3)
        tower = make_tower(net, dropout=drop, precision=precision, scatter=scatter, fused=fused)
        for n in (20_000, 1999):
            batch = make_batch(n, 5, device, users=6040, items=3706)
            norms = BF16 if precision == "bf16" else 2e-3  # a few of the 45 million units pass 0 by rounding
            beside_autograd(net, batch, tower, drop, norms=norms, loss="bce", share=1.0, l2=0.1, l2_h=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", [*CHECKS, "replayed", "realistic"])
def test_on_hardware(check: str) -> None:
    globals()[check]("cuda")


def test_what_it_does_not_serve() -> None:
    from fastrec.models.gpu_tower import GpuTower

    assert not GpuTower.serves(make_model("mlp")), "on the CPU without the interpreter"
    assert not GpuTower.serves(make_model("gmf"))
    with pytest.raises(ConfigError, match="precision = 'fp16'"):
        GpuTower(make_model("mlp"), precision="fp16")


ACTIVATIONS = ("u", "v", "w", "x", "dx", "dz", "out", "p", "q", "other_rows")
KINDS = {
    **dict.fromkeys(("users", "items", "others", "starts"), "*i32"), "keys": "*i16", "order": "*i64",
    **dict.fromkeys(("bias", "h", "h_gmf", "g", "grad", "user_grad", "item_grad", "parts"), "*fp32"),
    **dict.fromkeys(("sums", "user_sums", "item_sums"), "*fp32"), "positions": "*i64", "epoch": "*i64",
    **dict.fromkeys(("weight", "scale"), "fp32"), "limit": "i64",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "TAG": 7, "DROP": True, "COLUMNS": 5, "DIM": 64, "DEEP": 64, "PARTS": 2048, "CHUNK": 256, "BPR": False, "GMF": True,
    "READY": False, "ADD_USERS": False, "ADD_ITEMS": False, "EACH": 1, "LAYER": 2, "WIDE": 128, "WIDTH": 128,
    "BLOCKS": 32, "IN": 256, "TALL": 128, "BROAD": 128, "SLICE": 64, "WIDEN": False,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "neumf": {},
    "mlp-bpr": {"GMF": False, "BPR": True, "DIM": 0, "DEEP": 16, "DROP": False, "READY": True},
    "odd-atomic": {"WIDTH": 300, "WIDE": 512, "BLOCKS": 128, "DIM": 12, "DEEP": 16, "EACH": 5, "ADD_ITEMS": True},
}
FORMS["odd-atomic"]["ADD_USERS"] = True
SIZES = {
    "forward": 0,
    "backward": 0,
    "first": 256,
    "bend": 256,
    "scatter": 256,
    "last": 8,
    "unbend": 16,
    "segments": 16,
}


@pytest.mark.parametrize("activations", ["*fp32", "*bf16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kernel", SIZES)
def test_compiles_ahead_of_time_for_sm_90(kernel: str, form: str, activations: str) -> None:
    from triton.backends.compiler import GPUTarget

    from fastrec.models import gpu_tower_kernels, gpu_tower_products

    product = kernel in ("forward", "backward")
    if product and activations == "*fp32":
        pytest.skip("float32 products on CUDA are cuBLAS's; this takes half a minute to compile")
    fn = getattr(gpu_tower_products if product else gpu_tower_kernels, f"{kernel}_kernel")
    constants = {**CONSTANTS, **FORMS[form], "SIZE": SIZES[kernel]}
    constants = {k: v for k, v in constants.items() if k in fn.arg_names}
    signature = {k: activations if k in ACTIVATIONS else KINDS.get(k, "i32") for k in fn.arg_names}
    if kernel == "last":
        signature["sums"] = "*fp64"
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {(n,): [["tt.divisibility", 16]] for n, k in enumerate(fn.arg_names) if signature[k].startswith("*")}
    source = triton.compiler.ASTSource(fn=fn, signature=signature, constexprs=constants, attrs=aligned)
    launch = gpu_tower_products.LAUNCH if product else {}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch)
    assert ".target sm_90" in compiled.asm["ptx"]
    assert not product or "wgmma" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
    if kernel in ("first", "bend", "scatter"):
        assert compiled.metadata.shared == 0, "a thread draws what it needs; nothing passes between them"
