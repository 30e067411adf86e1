"""Tests of rows give the textbook's numbers, and on simulated truths they err as often as they say."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.significance import (
    clustered_mcnemar,
    games_howell,
    holm,
    mcnemar,
    paired_bootstrap,
    probability_of_better,
    tied_with_best,
    welch,
)
from analysis.stats.uncertainty import half_width


def textbook(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Welch's t, the standard error and Welch-Satterthwaite's degrees of freedom."""
    first, second = (sample.var(ddof=1) / len(sample) for sample in (a, b))
    error = np.sqrt(first + second)
    freedom = (first + second) ** 2 / (first**2 / (len(a) - 1) + second**2 / (len(b) - 1))
    return (a.mean() - b.mean()) / error, error, freedom


@pytest.mark.parametrize("seed", range(4))
def test_welch_is_the_textbooks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=5), rng.normal(1, 3, size=4)
    ours, (t, error, freedom) = welch(a, b), textbook(a, b)
    half = error * stats.t.ppf(0.975, freedom)
    assert float(ours.p) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-10)
    assert (float(ours.low), float(ours.high)) == pytest.approx((t * error - half, t * error + half), rel=1e-10)


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_welch_claims_nothing_without_a_spread(a: list[float], b: list[float]) -> None:
    found = welch(a, b)
    assert np.isnan([found.p, found.low, found.high]).all()
    assert found.difference == np.mean(a) - np.mean(b)


def test_holm_by_hand() -> None:
    # sorted .01, .03, .04: .01 x 3, .03 x 2, .04 x 1 raised to .06
    assert holm([0.01, 0.04, float("nan"), 0.03]) == pytest.approx([0.03, 0.06, float("nan"), 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(8))
def test_ties_with_the_best_are_games_howells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [rng.normal(mean, sd, n) for mean, sd, n in ((0, 1, 5), (1.5, 0.3, 5), (2, 0.5, 4), (1.2, 0.2, 6))]
    best = int(np.argmax([group.mean() for group in groups]))
    found = [textbook(groups[best], group) for group in groups]
    p = [stats.studentized_range.sf(abs(t) * np.sqrt(2), len(groups), freedom) for t, _, freedom in found]
    assert stats.tukey_hsd(*groups, equal_var=False).pvalue[best] == pytest.approx(p, abs=1e-10)
    assert stats.tukey_hsd(*groups, equal_var=False).pvalue[best] == pytest.approx(
        games_howell(groups, best), abs=1e-10
    )
    assert tied_with_best(groups) == [k == best or bool(value > 0.05) for k, value in enumerate(p)]


def test_what_cannot_be_tested_is_not_called_tied() -> None:
    assert tied_with_best([[1.0, 2.0], [1.0, 3.0], [5.0]]) == [None, None, True]
    assert tied_with_best([[1.0], [2.0, 3.0]]) == [None, True]
    assert tied_with_best([[1.0, 1.0], [2.0, 2.0]]) == [None, True]


def test_mcnemar_is_the_binomial_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.5
    only_a, only_b, p = mcnemar(a, b)
    tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    assert p == pytest.approx(min(1.0, 2 * tail), rel=1e-10)
    assert mcnemar(a, a) == (0, 0, 1.0)


def test_clustered_mcnemar_of_one_run_each_is_mcnemars() -> None:
    a, b = np.arange(100) < 70, np.arange(100) >= 45
    only_a, only_b, _ = mcnemar(a, b)
    chi2 = (only_a - only_b) ** 2 / (only_a + only_b)  # McNemar's statistic without continuity correction
    assert clustered_mcnemar(a.astype(float) - b) == pytest.approx(stats.chi2.sf(chi2, 1))


def test_runs_of_the_same_samples_are_no_new_evidence() -> None:
    once = np.repeat([1.0, -1.0, 0.0], [30, 15, 55])
    repeated = np.mean([once] * 5, axis=0)  # five seeds that agree to the last sample
    assert clustered_mcnemar(repeated) == pytest.approx(clustered_mcnemar(once))


def test_the_bootstrap_interval_is_the_normal_one_on_many_samples() -> None:
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 2000)
    half = 1.96 * differences.std() / np.sqrt(len(differences))
    low, high = paired_bootstrap(differences)
    assert (low, high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=0.15 * half)
    assert paired_bootstrap(differences) == (low, high)


def test_the_bootstrap_interval_is_that_of_drawing_indices() -> None:
    differences = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 300)
    means = differences[np.random.default_rng(0).integers(300, size=(10_000, 300))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert paired_bootstrap(differences) == pytest.approx((low, high), abs=1e-10)
    assert paired_bootstrap(np.array([0.5])) == (0.5, 0.5)


def test_probability_of_better_counts_draws_half() -> None:
    assert probability_of_better([3, 2, 1, 1], [2, 2, 2, 0]) == pytest.approx(2.5 / 4)


def test_t_intervals_of_five_seeds_cover_the_truth() -> None:
    samples = np.random.default_rng(0).normal(70, 2, size=(20_000, 5))
    half = half_width(samples.std(axis=1, ddof=1), 5, "ci")
    assert 0.93 <= np.mean(np.abs(samples.mean(axis=1) - 70) <= half) <= 0.97
    sem = half_width(samples.std(axis=1, ddof=1), 5, "sem")
    assert np.mean(np.abs(samples.mean(axis=1) - 70) <= sem) < 0.7  # which is why the caption names it


def test_welch_intervals_of_unlike_spreads_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    found = welch(rng.normal(70, 3, (20_000, 5)), rng.normal(69, 1, (20_000, 5)))
    assert 0.93 <= np.mean((found.low <= 1) & (found.high >= 1)) <= 0.97


def test_corrected_tests_of_six_equal_methods_rarely_cry_wolf() -> None:
    samples = np.random.default_rng(2).normal(70, 2, size=(4000, 6, 5))
    p = welch(samples[:, 1:], samples[:, :1]).p
    assert np.mean([min(holm(table)) < 0.05 for table in p.tolist()]) <= 0.06
    best = np.take_along_axis(samples, samples.mean(axis=2).argmax(axis=1)[:, None, None], axis=1)
    uncorrected = np.where(samples.mean(axis=2) == best.mean(axis=2), 1.0, welch(best, samples).p)
    assert np.mean(uncorrected.min(axis=1) < 0.05) > 0.15  # what this guards from


def test_the_best_set_of_six_equal_methods_rarely_leaves_one_out() -> None:
    tables = np.random.default_rng(3).normal(70, 2, size=(200, 6, 5))
    assert np.mean([not all(tied_with_best(list(table))) for table in tables]) <= 0.06


def test_a_method_that_is_far_behind_is_left_out() -> None:
    groups = [np.random.default_rng(k).normal(mean, 1, 5) for k, mean in enumerate((70, 70, 60))]
    assert tied_with_best(groups)[2] is False
