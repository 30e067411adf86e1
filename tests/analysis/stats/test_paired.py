"""The tests over replicates err as often as they say on simulated truths; rows of the table in docs/analysis.md."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.paired import Replicated, paired, tied_replicates, two_way_variance, variance_shares

STUDIES = 3000
REPLICATE, CELL = 2.5, 3.0
"""SD of the noise of a replicate, and of a group in a replicate, in points."""


def folds(groups: int, parts: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """(R, G) share of each replicate's test part that is a group's: partitions of the groups, drawn again."""
    drawn = [part for _ in range(repeats) for part in np.array_split(rng.permutation(groups), parts)]
    tested = np.zeros((len(drawn), groups))
    for replicate, part in enumerate(drawn):
        tested[replicate, part] = 1 / len(part)
    return tested


def simulated(
    groups: int, parts: int, repeats: int, tau: float, effect: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-way p, whether the 95 % interval covers the effect, and the plain t's p of many studies."""
    rng = np.random.default_rng(seed)
    shares = folds(groups, parts, repeats, rng)
    n = len(shares)
    noise = rng.normal(0, REPLICATE, (STUDIES, n, 1)) + rng.normal(0, tau, (STUDIES, 1, groups))
    cells = shares * (effect + noise + rng.normal(0, CELL, (STUDIES, n, groups)))
    values = cells.sum(axis=-1)
    mean = values.mean(axis=-1)
    error = np.sqrt(two_way_variance((cells - mean[:, None, None] * shares) / n, shares > 0))
    freedom = min(n, groups) - 1
    covered = abs(mean - effect) <= stats.t.ppf(0.975, freedom) * error
    plain = stats.ttest_1samp(values, 0, axis=-1).pvalue
    return 2 * stats.t.sf(abs(mean) / error, freedom), covered, plain


@pytest.mark.parametrize(
    ("groups", "parts", "repeats", "tau", "alarms", "of_two", "of_four"),
    [
        (8, 8, 2, 2, 0.03, 0.28, 0.78),
        (8, 8, 4, 4, 0.05, 0.18, 0.60),
        (8, 4, 4, 4, 0.05, 0.19, 0.58),
        (40, 5, 3, 0, 0.06, 0.77, 1.0),
        (40, 8, 2, 4, 0.05, 0.49, 0.98),
    ],
)
def test_false_alarms_power_and_coverage_of_the_two_way_test(
    groups: int, parts: int, repeats: int, tau: float, alarms: float, of_two: float, of_four: float
) -> None:
    found = [simulated(groups, parts, repeats, tau, effect, seed=7) for effect in (0, 2, 4)]
    rates = [float(np.mean(p < 0.05)) for p, _, _ in found]
    # The table's own figures were simulated too, and rounded: 3 standard errors of 3,000 studies are up to .03.
    assert rates[0] == pytest.approx(alarms, abs=0.02)
    assert rates[1:] == pytest.approx([of_two, of_four], abs=0.04)
    assert min(np.mean(covered) for _, covered, _ in found) >= 0.93


def test_the_plain_test_raises_false_alarms_where_groups_differ() -> None:
    two_way, _, plain = simulated(8, 8, 4, 4, 0, seed=8)
    assert np.mean(plain < 0.05) > 0.15  # what clustering by group guards from
    assert np.mean(two_way < 0.05) <= 0.07


def replicated(values: np.ndarray) -> Replicated:
    none = np.zeros((len(values), 0))
    return Replicated(tuple(range(len(values))), values, (), none, none)


@pytest.mark.parametrize("n", [5, 16])
def test_rows_of_one_tuning_each_are_told_apart_no_more_often_than_said(n: int) -> None:
    """Equal methods: SD 4 between splits, which pairs share, and 2 between tunings and seeds of unequal variance."""
    rng = np.random.default_rng(n)
    alarms, covered = [], []
    for _ in range(STUDIES):
        split = rng.normal(80, 4, n)
        test = paired(replicated(split + rng.normal(0, 2.8, n)), replicated(split + rng.normal(0, 0.8, n)))
        alarms.append(test.p < 0.05)
        covered.append(test.interval[0] <= 0 <= test.interval[1])
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.015)
    assert np.mean(covered) >= 0.93


def test_the_best_of_six_equal_rows_rarely_leaves_one_out() -> None:
    rng = np.random.default_rng(3)
    spreads = np.array([0.6, 2, 2, 2, 2, 4])[:, None]
    tables = 80 + rng.normal(0, 4, (300, 1, 8)) + spreads * rng.normal(size=(300, 6, 8))
    left_out = [not all(tied_replicates([replicated(row) for row in rows])) for rows in tables]
    assert np.mean(left_out) <= 0.08


def test_a_row_that_is_far_behind_is_left_out_and_one_replicate_tells_nothing() -> None:
    rng = np.random.default_rng(4)
    rows = [replicated(mean + rng.normal(0, 1, 6)) for mean in (80, 80, 60)]
    assert tied_replicates(rows)[2] is False
    assert tied_replicates([replicated(np.array([70.0])), replicated(np.array([80.0]))]) == [None, True]


def test_the_paired_test_is_scipys_over_the_replicates_that_both_have() -> None:
    rng = np.random.default_rng(5)
    a, b = replicated(rng.normal(75, 3, 6)), replicated(rng.normal(74, 3, 8))
    found = paired(a, b)
    test = stats.ttest_rel(a.values, b.values[:6])
    assert found.p == pytest.approx(test.pvalue)
    assert found.interval == pytest.approx(tuple(test.confidence_interval()))
    differences = a.values - b.values[:6]
    assert found.effect == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert found.correlation == pytest.approx(np.corrcoef(a.values, b.values[:6])[0, 1])


def test_shares_of_variance_are_those_that_were_put_in() -> None:
    rng = np.random.default_rng(6)
    shares = folds(40, 4, 10, rng)
    found = []
    for _ in range(200):
        noise = rng.normal(0, 2, (40, 1)) + rng.normal(0, 3, (1, 40)) + rng.normal(0, 1, (40, 40))
        cells = shares * noise
        mean = cells.sum(axis=1).mean()
        found.append(variance_shares((cells - mean * shares) / 40, shares))
    parts = [np.mean([getattr(one, name) ** 2 for one in found]) for name in ("replicate", "group", "rest")]
    assert parts == pytest.approx([4, 9, 1], rel=0.15)
