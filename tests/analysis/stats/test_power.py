"""The minimum detectable difference is the one that a simulated test finds four times in five."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.power import detectable_over_replicates, detectable_over_seeds
from analysis.stats.significance import welch

RUNS = 20_000


@pytest.mark.parametrize(("n", "comparisons"), [(2, 1), (3, 1), (5, 1), (3, 14), (10, 14)])
def test_welchs_test_finds_it_four_times_in_five(n: int, comparisons: int) -> None:
    minimum = detectable_over_seeds([(n, 1.0)] * 2, comparisons)
    assert minimum is not None
    rng = np.random.default_rng(n)
    p = welch(rng.normal(minimum.difference, 1, (RUNS, n)), rng.normal(0, 1, (RUNS, n))).p
    assert np.mean(p < 0.05 / comparisons) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(("n", "sds"), [(2, 10.4), (3, 3.50), (5, 2.08)])
def test_of_few_seeds_in_standard_deviations(n: int, sds: float) -> None:
    minimum = detectable_over_seeds([(n, 1.0), (n, 1.0)])
    assert minimum is not None
    assert minimum.difference == pytest.approx(sds, rel=0.003)


@pytest.mark.parametrize(("n", "comparisons"), [(4, 1), (8, 14)])
def test_the_paired_test_finds_it_four_times_in_five(n: int, comparisons: int) -> None:
    minimum = detectable_over_replicates([3 / n**0.5], n - 1, n, comparisons)
    differences = np.random.default_rng(n).normal(minimum.difference, 3, (RUNS, n))
    t = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / n**0.5)
    assert np.mean(2 * stats.t.sf(abs(t), n - 1) < 0.05 / comparisons) == pytest.approx(0.8, abs=0.015)


def test_the_spread_is_pooled_and_n_is_the_smallest() -> None:
    minimum = detectable_over_seeds([(3, 1.0), (5, 2.0), (1, 0.0)])
    assert minimum is not None
    assert minimum.n == 3
    assert minimum.pooled == pytest.approx(((2 * 1 + 4 * 4) / 6) ** 0.5)


def test_single_seeds_show_nothing() -> None:
    assert detectable_over_seeds([(1, 0.0)]) is None
