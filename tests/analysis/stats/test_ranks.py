"""Ranks over data sets: Friedman's test and its post-hoc test hold their level, and few data sets are not tested."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.ranks import FEWEST, rank_rows


def test_ranks_are_means_and_ties_share_them() -> None:
    found = rank_rows([[0.9, 0.8, 0.7], [0.8, 0.8, 0.7]], {1: 0})
    assert list(found.means) == [1.25, 1.75, 3.0]
    assert np.isnan(found.p)
    assert found.against == {}


def test_the_f_of_iman_and_davenport_follows_from_friedmans_chi_square() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 5)) + np.arange(5) / 2
    found = rank_rows(scores, {1: 0, 2: 0})
    chi = stats.friedmanchisquare(*scores.T).statistic
    f = 7 * chi / (8 * 4 - chi)
    assert found.p == pytest.approx(stats.f.sf(f, 4, 28))
    z = [(found.means[row] - found.means[0]) / np.sqrt(5 * 6 / 48) for row in (1, 2)]
    p = [2 * stats.norm.sf(abs(value)) for value in z]
    smaller = min(p)
    assert sorted(found.against.values()) == pytest.approx(sorted([2 * smaller, max(2 * smaller, max(p))]))


@pytest.mark.parametrize("sets", [FEWEST, 12])
def test_false_alarms_of_equal_rows(sets: int) -> None:
    rng = np.random.default_rng(sets)
    found = [rank_rows(rng.normal(size=(sets, 6)), dict.fromkeys(range(1, 6), 0)) for _ in range(3000)]
    assert np.mean([one.p < 0.05 for one in found]) <= 0.06
    both = [one.p < 0.05 and min(one.against.values()) < 0.05 for one in found]
    assert np.mean(both) <= 0.05


def test_a_row_that_wins_everywhere_is_found() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(8, 4)) + np.array([0, 6, 0, 0])
    found = rank_rows(scores, {1: 0, 2: 0, 3: 0})
    assert found.means[1] == 1.0
    assert found.p < 0.05
    assert found.against[1] < 0.05 < found.against[2]
