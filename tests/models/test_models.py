"""The models: shapes, addressed initial weights, and what evaluation asks of them."""

import numpy as np
import pytest
import torch

from fastrec import models
from fastrec.errors import ConfigError
from fastrec.models.parts import init
from tests.helpers.training import N_ITEMS, N_USERS, make_model

USERS = torch.tensor([0, 5, 22, 5], dtype=torch.int32)
ITEMS = torch.tensor([[0, 30, 7], [1, 1, 2], [3, 4, 5], [30, 29, 28]], dtype=torch.int32)


def with_random_weights(model: str) -> torch.nn.Module:
    net = make_model(model)
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_(torch.from_numpy(init.normal(f"test {k}", tuple(p.shape), 0.7, 3)))
    return net


@pytest.mark.parametrize("model", models.names())
def test_scores_of_a_batch_agree_with_scores_of_all_items(model: str) -> None:
    net = with_random_weights(model)
    logits = net(USERS, ITEMS)
    assert logits.dtype == torch.float32
    assert logits.shape == (4, 3)
    everything = net.score_all(USERS)
    assert everything.shape == (4, N_ITEMS)
    torch.testing.assert_close(everything.gather(1, ITEMS.long()), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["mf", "gmf"])
def test_vectors_give_the_scores_up_to_a_constant_per_user(model: str) -> None:
    net = with_random_weights(model)
    user, item, bias = net.vectors()
    difference = user[USERS.long()] @ item.T + bias - net.score_all(USERS)
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "neumf"])
def test_an_mlp_has_no_vectors(model: str) -> None:
    assert make_model(model).vectors() is None


@pytest.mark.parametrize("model", ["mlp", "neumf"])
def test_tables_through_the_first_layer_equal_rows_through_it(model: str) -> None:
    """A batch with more rows than the tables takes the other path; the mathematics are the same."""
    net = with_random_weights(model)
    users = torch.arange(N_USERS, dtype=torch.int32).repeat(2)
    items = torch.arange(2 * N_USERS * 3, dtype=torch.int32).reshape(-1, 3) % N_ITEMS
    whole = net(users, items)
    rows = torch.cat([net(users[k : k + 1], items[k : k + 1]) for k in range(users.numel())])
    torch.testing.assert_close(whole, rows, rtol=1e-5, atol=1e-5)


def test_gmf_is_the_weighted_product() -> None:
    net = with_random_weights("gmf")
    p, q = net.user_factors[5], net.item_factors[2]
    assert net(USERS, ITEMS)[1, 2].item() == pytest.approx(((p * net.h * q).sum() + net.bias).item(), rel=1e-5)


def test_initial_weights_are_addressed_not_drawn() -> None:
    torch.manual_seed(1)
    first = make_model("neumf").state_dict()
    state = torch.random.get_rng_state()
    again = make_model("neumf").state_dict()
    assert torch.equal(torch.random.get_rng_state(), state), "building must leave the global generator alone"
    assert all(torch.equal(first[k], again[k]) for k in first)
    other = make_model("neumf", seed=3).state_dict()
    assert not torch.equal(first["user_factors"], other["user_factors"])
    assert torch.equal(first["user_factors"], make_model("gmf").user_factors), "one name, one start"
    assert not torch.equal(first["user_factors"][:N_USERS], first["item_factors"][:N_USERS])


def test_h_of_ones_makes_gmf_an_mf_without_biases() -> None:
    gmf, mf = make_model("gmf", output_init="one"), make_model("mf")
    assert torch.equal(gmf.h, torch.ones(4))
    torch.testing.assert_close(gmf(USERS, ITEMS), mf(USERS, ITEMS))
    assert models.build(**gmf.build_args).h.equal(gmf.h)
    neumf, drawn = make_model("neumf", output_init="one"), make_model("neumf")
    assert torch.equal(neumf.h[:4], torch.ones(4))
    assert torch.equal(neumf.h[4:], drawn.h[4:]), "the MLP's part is drawn as ever"
    with pytest.raises(ConfigError, match="output_init = 'one': mf has no such option"):
        make_model("mf", output_init="one")
    with pytest.raises(ConfigError, match="output_init = 'two'"):
        make_model("gmf", output_init="two")


def test_a_table_starts_the_same_whatever_follows() -> None:
    assert np.array_equal(init.normal("x", (5, 3), 1.0, 7), init.normal("x", (50, 3), 1.0, 7)[:5])


def test_initial_distributions() -> None:
    x = init.normal("x", (200_000,), 0.01, 0).astype(np.float64) / 0.01
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs((x**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01
    u = init.uniform("x", (100_000,), 2.0, 0)
    assert np.abs(u).max() <= 2.0
    assert abs(float(u.std()) - 2 / 3**0.5) < 0.01


def test_golden_initial_weights() -> None:
    """Pinned: a change of any of these changes every run, and STREAM_VERSION with them."""
    found = init.normal("user_factors", (5,), 0.01, 0)
    expected = [-0.0069499775, 0.0031896140, -0.0073010409, 0.0063118618, 0.0028339205]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_neumf_starts_from_its_parts() -> None:
    gmf, mlp, net = with_random_weights("gmf"), with_random_weights("mlp"), make_model("neumf")
    net.start_from(gmf, mlp, 0.3)
    mixed = 0.3 * gmf(USERS, ITEMS) + 0.7 * mlp(USERS, ITEMS)
    torch.testing.assert_close(net(USERS, ITEMS), mixed, rtol=1e-4, atol=1e-5)


def test_neumf_refuses_parts_of_other_sizes() -> None:
    with pytest.raises(ConfigError, match=r"user_factors.*\[23, 4\].*\[23, 8\]"):
        make_model("neumf").start_from(make_model("gmf", dim=8), make_model("mlp"), 0.5)


def test_unknown_model_and_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        make_model("lstm")
    with pytest.raises(ConfigError, match="even number"):
        make_model("mlp", layers=(7, 3))
