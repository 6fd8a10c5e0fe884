"""The order of visit is a permutation at every size, by address."""

import itertools

import numpy as np
import pytest
from scipy import stats

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
    with pytest.raises(ConfigError, match="is not in"):
        Order(10, 0).positions(0, 5, 11)


def test_random_access_across_vector_steps_and_walks() -> None:
    """n just above a square: most walking; cuts that fall on no vector step."""
    order = Order(70_226, 9)
    whole = order.positions(1, 0, order.n)
    assert np.array_equal(np.sort(whole), np.arange(order.n))
    for start, stop in ((0, 1), (63, 65), (1000, 1129), (70_100, 70_226)):
        assert np.array_equal(order.positions(1, start, stop), whole[start:stop])


def test_ranks_share_every_batch_exactly() -> None:
    order = Order(1003, 0)
    for world in (1, 2, 3, 7):
        ranges = [order.batch(0, k, 100, rank=r, world=world) for k in range(11) for r in range(world)]
        assert ranges[0][0] == 0
        assert ranges[-1][1] == 1003
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
        sizes = [b - a for a, b in ranges[: 10 * world]]
        assert max(sizes) - min(sizes) <= 1
    with pytest.raises(ConfigError, match="batch 11"):
        order.batch(0, 11, 100)


def chi_square(counts: np.ndarray) -> float:
    return float(stats.chisquare(counts.ravel()).pvalue)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_every_permutation_of_few_positions_is_as_likely(n: int) -> None:
    order, seen = Order(n, 3), dict.fromkeys(itertools.permutations(range(n)), 0)
    for epoch in range(40 * len(seen)):
        seen[tuple(order.positions(epoch, 0, n).tolist())] += 1
    assert chi_square(np.array(list(seen.values()))) > 1e-4


@pytest.mark.parametrize(("n", "epochs"), [(100, 4000), (4100, 300)])
def test_places_pairs_and_steps_are_uniform_over_epochs(n: int, epochs: int) -> None:
    """Chi-square over epochs: where a position goes, where the first two go together, and the steps between neighbours.

    The two sizes stand just below and above the change from 24 rounds to 6.
    """
    whole = np.stack([Order(n, 1).positions(epoch, 0, n) for epoch in range(epochs)])
    for place in (0, 1, n // 2, n - 1):
        assert chi_square(np.bincount(whole[:, place] * 20 // n, minlength=20)) > 1e-4
    both = np.zeros((5, 5), int)
    np.add.at(both, (whole[:, 0] * 5 // n, whole[:, 1] * 5 // n), 1)
    expected = (n / 5) ** 2 - n / 5 * np.eye(5)  # the second differs from the first
    assert stats.chisquare(both.ravel(), (expected * epochs / expected.sum()).ravel()).pvalue > 1e-4
    for apart in (1, 2, int(n**0.5), n // 2):
        steps = (whole[:, apart:] - whole[:, :-apart]) % n
        assert chi_square(np.bincount(steps.ravel(), minlength=n)[1:]) > 1e-4, apart


def test_a_large_order_spreads_evenly_and_keeps_no_neighbours() -> None:
    n = 1_000_209
    order = Order(n, 42)
    for epoch in (0, 1):
        visited = order.positions(epoch, 0, n)
        batch = visited[: 64 * 1024]
        assert chi_square(np.bincount(batch * 64 // n, minlength=64)) > 1e-4
        grid = np.zeros((16, 16), int)
        np.add.at(grid, (np.arange(n) * 16 // n, visited * 16 // n), 1)
        assert chi_square(grid) > 1e-4
        assert (np.abs(np.diff(visited)) == 1).sum() < 12  # about 2 are expected
        assert (visited == np.arange(n)).sum() < 8  # about 1 is expected
    moved = order.positions(0, 0, n) - order.positions(1, 0, n)
    assert (moved == 0).sum() < 8
