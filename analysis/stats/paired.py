"""Tests of two rows over the same replicates, with variance clustered by replicate and by test group.

Sources: Cameron, Gelbach and Miller, Robust inference with multiway clustering (2011), for the two-way variance;
Bouthillier et al., Accounting for variance in machine learning benchmarks (2021), for replicates that vary everything.
Welch's test over the seeds of one tuning, the t test over group means and the correction of Nadeau and Bengio (2003)
have false alarms of up to .44 and .33, and no power, in the simulations of tests/analysis/stats/test_paired.py's kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis.loading.frames import Floats
from analysis.stats.significance import holm
from analysis.stats.uncertainty import ALPHA


@dataclass(frozen=True)
class Replicated:
    """A score of a row in R replicates, in points.

    Attributes:
        replicates: (R,) their numbers.
        values: (R,) mean score of the replicate's final runs.
        groups: (G,) names of the test groups; empty if all replicates have the same test samples.
        parts: (R, G) what each group contributes to the value, 0 where it was not tested: rows sum to `values`.
        shares: (R, G) share of the replicate's test samples that are the group's: rows sum to 1.
    """

    replicates: tuple[int, ...]
    values: Floats
    groups: tuple[str, ...]
    parts: Floats
    shares: Floats

    def take(self, replicates: Sequence[int]) -> Replicated:
        """The same of these replicates, in their order."""
        places = [self.replicates.index(number) for number in replicates]
        one = {name: getattr(self, name)[places] for name in ("values", "parts", "shares")}
        return replace(self, replicates=tuple(replicates), **one)


@dataclass(frozen=True)
class Paired:
    """Mean difference of two rows over the replicates that both have.

    Attributes:
        difference: the mean of A less B, in points.
        differences: (R,) replicate by replicate.
        error: its standard error; NaN with under two replicates.
        freedom: degrees of freedom of its t.
        correlation: of A's and B's values over the replicates; NaN where one of them does not vary.
        shares: of the variance, see `VarianceShares`; None if the test samples are the same or too few to tell.
    """

    difference: float
    differences: Floats
    error: float
    freedom: int
    correlation: float
    shares: VarianceShares | None = None

    @property
    def p(self) -> float:
        """Two-sided p; NaN where nothing varies or there are too few replicates."""
        return float(2 * stdtr(self.freedom, -abs(self.difference) / self.error)) if self.error > 0 else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval; NaN where p is."""
        half = float(stdtrit(self.freedom, 1 - ALPHA / 2)) * self.error if self.error > 0 else float("nan")
        return self.difference - half, self.difference + half

    @property
    def effect(self) -> float:
        """Cohen's d of paired values: the mean difference in SDs of the differences; NaN where these do not vary."""
        spread = float(self.differences.std(ddof=1)) if len(self.differences) > 1 else 0.0
        return self.difference / spread if spread else float("nan")


@dataclass(frozen=True)
class VarianceShares:
    """Components of the variance of a difference in one group and replicate, by the method of moments.

    `group` and `replicate` are SDs in points: of the groups (tau: methods differ from group to group, which more
    replicates do not average out) and of the replicates; `rest` is that of both at once. `floor` is the standard error
    that any number of replicates would leave. `replicate` is NaN if each replicate tests one group.
    """

    group: float
    replicate: float
    rest: float
    floor: float


def paired(a: Replicated, b: Replicated) -> Paired:
    """Test A less B: t over replicates, or two-way where replicates have different test groups.

    Raises:
        ValueError: they have no replicate in common.
    """
    common = [number for number in a.replicates if number in b.replicates]
    if not common:
        raise ValueError("no replicate in common")
    first, second = a.take(common), b.take(common)
    differences = first.values - second.values
    mean, n = float(differences.mean()), len(common)
    varies = n > 1 and np.ptp(first.values) > 0 and np.ptp(second.values) > 0
    correlation = float(np.corrcoef(first.values, second.values)[0, 1]) if varies else float("nan")
    if n < 2:
        return Paired(mean, differences, float("nan"), 0, correlation)
    tested = first.shares.any(axis=0) if a.groups and a.groups == b.groups else np.zeros(0, bool)
    if tested.sum() < 2:
        return Paired(mean, differences, float(differences.std(ddof=1) / np.sqrt(n)), n - 1, correlation)
    shares = first.shares[:, tested]
    cells = ((first.parts - second.parts)[:, tested] - mean * shares) / n
    variance = two_way_variance(cells, shares > 0)
    freedom = min(n, int(tested.sum())) - 1
    return Paired(mean, differences, float(np.sqrt(variance)), freedom, correlation, variance_shares(cells, shares))


def two_way_variance(cells: Floats, tested: np.ndarray) -> Floats:
    """Variance of a mean, clustered by replicate and by group: V_replicate + V_group - V_cell, each with n / (n - 1).

    Never below the larger of the first two, which the difference can be by chance (Cameron, Gelbach and Miller 2011).

    Args:
        cells: (..., R, G) contributions to the mean's deviation, 0 where a replicate does not test a group.
        tested: (R, G) True where it does.
    """
    replicate, group, cell = _clustered(cells, tested)
    return np.asarray(np.maximum(replicate + group - cell, np.maximum(replicate, group)))


def _clustered(cells: Floats, tested: np.ndarray) -> tuple[Floats, Floats, Floats]:
    replicates, groups, number = *cells.shape[-2:], int(tested.sum())
    by_replicate, by_group = cells.sum(axis=-1), cells.sum(axis=-2)
    return (
        np.asarray((by_replicate**2).sum(axis=-1) * replicates / (replicates - 1)),
        np.asarray((by_group**2).sum(axis=-1) * groups / (groups - 1)),
        np.asarray((cells**2).sum(axis=(-2, -1)) * number / (number - 1)),
    )


def variance_shares(cells: Floats, shares: Floats) -> VarianceShares:
    """See `VarianceShares`.

    The three clustered variances of `two_way_variance` have the expectations B_g tau^2 + A (rho^2 + e^2),
    B_r rho^2 + A (tau^2 + e^2) and A (tau^2 + rho^2 + e^2), where A, B_g and B_r are the sums of squares of a cell's, a
    group's and a replicate's share in the mean.

    Args:
        cells: (R, G) contributions to the mean's deviation.
        shares: (R, G) share of the replicate's test samples that are the group's.
    """
    weights = shares / len(shares)
    of_cell, of_group, of_replicate = (float((w**2).sum()) for w in (weights, weights.sum(0), weights.sum(1)))
    by_replicate, by_group, by_cell = map(float, _clustered(cells, shares > 0))
    tau = max(by_group - by_cell, 0.0) / (of_group - of_cell) if of_group > of_cell else float("nan")
    rho = max(by_replicate - by_cell, 0.0) / (of_replicate - of_cell) if of_replicate > 1.0001 * of_cell else np.nan
    rest = max(by_cell / of_cell - np.nan_to_num(tau) - np.nan_to_num(rho), 0.0)
    group, replicate = float(np.sqrt(tau)), float(np.sqrt(rho))
    return VarianceShares(group, replicate, float(np.sqrt(rest)), group * float(np.sqrt(of_group)))


def tied_replicates(rows: Sequence[Replicated]) -> list[bool | None]:
    """True for rows that no test shows to differ from the one of the best mean.

    The tests are paired ones of all pairs with Holm's correction at 5 %, because which row is the best is known only
    from the data; unequal variances do not matter, each pair has its own. The best itself is True. None where a pair
    cannot be tested.
    """
    best = max(range(len(rows)), key=lambda k: float(rows[k].values.mean()))
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    p = [paired(rows[i], rows[j]).p if set(rows[i].replicates) & set(rows[j].replicates) else np.nan for i, j in pairs]
    corrected = dict(zip(pairs, holm(p), strict=True))
    found = [corrected.get((max(k, best), min(k, best)), 1.0) for k in range(len(rows))]
    return [None if np.isnan(value) else bool(value > ALPHA) for value in found]
