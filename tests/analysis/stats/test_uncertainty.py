"""Rounding by hand-computed examples."""

import pytest

from analysis.stats.uncertainty import column_decimals, pdg_decimals


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
