"""The capability table: every wish has one backend or one refusal, and newcomers are neither ignored nor mistaken."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from fastrec import models, optim
from fastrec.engines.capabilities import BACKENDS, Wish, choose, name_of, slow_path, table
from fastrec.engines.fused.engine import FusedEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.models.gmf import GMF
from fastrec.models.mf import MF
from fastrec.models.parts import base as model_parts
from fastrec.models.parts import loss as loss_parts
from fastrec.models.parts.base import Model, normal
from fastrec.models.parts.loss import Loss
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, N_USERS, make_model, make_stream


def engine_of(model: Model, **options: Any) -> TorchEngine:
    return TorchEngine(model, make_stream(), batch_size=16, lr=lambda _: 0.05, **options)


def test_every_wish_is_served_or_refused_with_its_option() -> None:
    """All combinations of the table's columns: one backend whose row takes it, or an error that names an option."""
    served, refused = set(), []
    columns = (models.names(), losses.names(), optim.names(), ("cpu", "cuda"), ("fp32", "bf16", "fp16"))
    for model, loss, rule, device, precision in itertools.product(*columns):
        if models.model_class(model).similarity not in losses.get(loss).similarities:
            with pytest.raises(ConfigError, match=f"loss = '{loss}': is for .* with it use "):
                choose(Wish(model, loss, rule, "uniform", device, precision))
            continue
        for engine, mode in (("auto", "deterministic"), ("torch", "lock_free"), ("fused", "lock_free")):
            wish = Wish(model, loss, rule, "uniform", device, precision, engine, mode)
            try:
                backend = choose(wish)
            except ConfigError as error:
                refused.append((engine, str(error).partition(" = ")[0]))
                continue
            assert not backend.refusals(wish)
            assert engine in ("auto", backend.engine)
            served.add(backend.name)
    assert {engine for engine, _ in refused} == {"fused"}, "torch serves everything"
    assert {option for _, option in refused} <= set(Wish._fields)
    assert served == {b.name for b in BACKENDS}, "a row that nothing reaches is dead"


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"model": "mlp"}, "model = 'mlp': engine = fused .* takes 'mf' or 'gmf'; use engine = torch"),
        ({"model": "gmf", "loss": "bpr"}, "loss = 'bpr': .* takes 'bce'"),
        ({"model": "mf", "loss": "inbatch-softmax"}, "loss = 'inbatch-softmax': .* takes 'bce' or 'bpr'"),
        ({"model": "mf", "optimizer": "adam"}, "optimizer = 'adam': .* takes 'sgd' or 'row-adagrad' or 'lazy-adam'"),
        ({"model": "mf", "optimizer": "sgd", "accumulate": 2}, "accumulate = 2: .* takes 1"),
        ({"model": "mf", "optimizer": "lazy-adam", "fused_mode": "lock_free"}, "fused_mode = 'lock_free'|optimizer = "),
        ({"model": "mf", "optimizer": "sgd", "precision": "bf16"}, "precision = 'bf16': .* takes 'fp32'"),
    ],
)
def test_what_the_fused_engine_refuses(wish: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        choose(Wish(**{"optimizer": "sgd", "engine": "fused", **wish}))


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"model": "gfm"}, "model = 'gfm': must be one of .*did you mean gmf"),
        ({"model": "mf", "loss": "bcee"}, "did you mean bce"),
        ({"model": "mf", "optimizer": "adma"}, "optimizer = 'adma': must be one of"),
        ({"model": "mf", "engine": "jax"}, "engine = 'jax': must be one of auto, torch, fused"),
    ],
)
def test_unknown_names_are_refused(wish: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        choose(Wish(**wish))


def test_the_table_has_a_row_per_backend() -> None:
    header, *rows = table()
    assert [row[0] for row in rows] == [b.name for b in BACKENDS]
    assert {len(row) for row in (header, *rows)} == {len(header)}


class Silent(MF):
    """A subclass of a model that has kernels, with a forward pass of its own."""

    calls = 0

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(users, items) * 0.0


def test_a_subclass_with_its_own_forward_is_trained_by_it() -> None:
    model = Silent(N_USERS, N_ITEMS, 4, seed=2)
    assert name_of(model) is None
    engine = engine_of(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    progress = engine.advance(Cursor(0, 0), 3)
    engine.close()
    assert model.calls == 3
    assert engine.backend.name == "autograd"
    assert engine.slow_path == "no kernels for this model: autograd, about 4 times slower"
    assert progress.loss_sum / progress.n_samples == pytest.approx(0.6931, abs=1e-4), "its logits are 0"
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "zeros have no gradient"


class Euclidean(Model):
    """A distance model whose parameters are named like GMF's."""

    user_rows, item_rows = ("user_factors",), ("item_factors",)
    output_weights, global_biases = ("h",), ("bias",)

    def __init__(self) -> None:
        super().__init__(N_USERS, N_ITEMS, 4)
        self.user_factors = normal("user_factors", (N_USERS, 4), 0.5, 1)
        self.item_factors = normal("item_factors", (N_ITEMS, 4), 0.5, 1)
        self.h = torch.nn.Parameter(torch.ones(4))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        p = self.gather(users, self.user_factors).unsqueeze(1)
        return self.bias - ((p - self.gather(items, self.item_factors)).square() * self.h).sum(-1)


def test_names_of_parameters_make_no_gmf() -> None:
    with pytest.raises(ConfigError, match=r"model Euclidean: the fused engine trains exactly MF and GMF"):
        FusedEngine(Euclidean(), make_stream(), batch_size=16, lr=lambda _: 0.05)
    model = Euclidean()
    engine = engine_of(model, l2=0.01, output_l2=0.1)
    users, items = torch.tensor([1, 2], dtype=torch.int32), torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    losses_seen = [engine.advance(Cursor(e, 0), 10**9) for e in range(3)]
    engine.close()
    assert engine.backend.name == "autograd"
    assert losses_seen[-1].loss_sum < losses_seen[0].loss_sum
    torch.testing.assert_close(model(users, items), engine.model(users, items))


def test_a_parameter_without_a_role_is_refused() -> None:
    class Undeclared(Euclidean):
        global_biases = ()

    with pytest.raises(ConfigError, match=r"Undeclared\.bias is declared neither in user_rows"):
        engine_of(Undeclared(), l2=0.01)


@pytest.fixture
def hinge() -> Any:
    """A loss with a torch form only, as a newcomer would register it."""
    loss = loss_parts.register(Loss("hinge", lambda x: torch.relu(1 - x[:, :1] + x[:, 1:]).mean(), pairs=True))
    yield loss
    del loss_parts._REGISTRY._values["hinge"]


@pytest.mark.parametrize("model", ["mf", "gmf", "mlp", "neumf"])
def test_a_new_loss_trains_as_itself(hinge: Loss, model: str) -> None:
    engine = engine_of(make_model(model), loss="hinge")
    first = engine.advance(Cursor(0, 0), 1)
    engine.close()
    stream, net = make_stream(), make_model(model)
    batch = stream.read(0, 0, 16)
    expected = hinge.mean(net(torch.from_numpy(batch.users), torch.from_numpy(batch.items)))
    assert first.loss_sum / first.n_samples == pytest.approx(expected.item(), rel=1e-6)


def test_a_new_loss_without_a_numba_form_is_refused_by_the_fused_engine(hinge: Loss) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match="loss = 'hinge'"):
        FusedEngine(make_model("mf"), make_stream(), batch_size=16, lr=lambda _: 0.05, loss="hinge")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="'gmf' is registered as"):
        model_parts.register("gmf")(Euclidean)
    with pytest.raises(ConfigError, match="'bce' is registered by"):
        loss_parts.register(Loss("bce", lambda x: x.mean()))
    assert models.model_class("gmf") is GMF


def test_the_slow_path_names_the_option_that_causes_it() -> None:
    wish = Wish("gmf", loss="inbatch-softmax", engine="torch")
    assert slow_path(wish, choose(wish)) == "no kernels for loss = inbatch-softmax: autograd, about 4 times slower"
    fast = Wish("gmf", engine="torch")
    assert slow_path(fast, choose(fast)) is None
