"""Rounding and power by hand-computed examples."""

import pytest

from analysis.stats.uncertainty import column_decimals, minimum_detectable_difference, pdg_decimals


@pytest.mark.parametrize(
    ("spread", "decimals"),
    [(0.123, 2), (0.354, 2), (0.355, 1), (0.42, 1), (0.949, 1), (0.95, 1), (0.9996, 1), (1.0, 1), (3.6, 0), (12, 0)],
)
def test_pdg_rule(spread: float, decimals: int) -> None:
    assert pdg_decimals(spread) == decimals


def test_a_column_is_not_finer_than_the_first_digit_of_one_sample() -> None:
    assert column_decimals([0.123], 100_000) == 2
    assert column_decimals([0.123], 4659) == 2
    assert column_decimals([0.123], 430) == 1
    assert column_decimals([0.123], 100) == 0
    assert column_decimals([], 1000) == 1
    assert column_decimals([400.0], 1000) == 0


def test_minimum_detectable_difference_of_three_seeds() -> None:
    # t.975(4) = 2.77645, t.80(4) = 0.94096; sqrt(2/3) = 0.81650
    minimum = minimum_detectable_difference([(3, 1.0), (3, 1.0)])
    assert minimum is not None
    assert minimum.difference == pytest.approx((2.77645 + 0.94096) * 0.81650, abs=1e-4)


def test_the_spread_is_pooled_and_n_is_the_smallest() -> None:
    minimum = minimum_detectable_difference([(3, 1.0), (5, 2.0), (1, 0.0)])
    assert minimum is not None
    assert minimum.n == 3
    assert minimum.pooled == pytest.approx(((2 * 1 + 4 * 4) / 6) ** 0.5)


def test_single_seeds_show_nothing() -> None:
    assert minimum_detectable_difference([(1, 0.0)]) is None
