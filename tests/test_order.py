"""The order of visit is a permutation at every size, by address."""

import numpy as np
import pytest

from fastrec.errors import ConfigError
from fastrec.sampling.order import Order


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 64, 1000, 4097])
def test_every_position_is_visited_once(n: int) -> None:
    assert sorted(Order(n, 7).positions(3, 0, n).tolist()) == list(range(n))


def test_random_access_agrees_with_the_whole_epoch() -> None:
    order = Order(1000, 5)
    whole = order.positions(2, 0, 1000)
    assert np.array_equal(order.positions(2, 333, 444), whole[333:444])


def test_seed_plus_epoch_bug_unequal_pairs_have_unequal_orders() -> None:
    """FFCV and streaming seed with seed + epoch: seed 0 epoch 1 then repeats seed 1 epoch 0."""
    assert not np.array_equal(Order(1000, 0).positions(1, 0, 1000), Order(1000, 1).positions(0, 0, 1000))


def test_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not lie"):
        Order(10, 0).positions(0, 5, 11)
