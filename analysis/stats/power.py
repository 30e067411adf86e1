"""The minimum detectable difference of a design, exactly, by the noncentral t distribution.

An approximation with central quantiles, (t.975 + t.80) s sqrt(2 / n), says 5.36 s for two seeds; the truth is 10.4 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.optimize import brentq
from scipy.special import betaincinv, stdtrit
from scipy.stats import nct

from analysis.loading.frames import Floats
from analysis.stats.uncertainty import ALPHA, POWER

NODES = 64
"""Of the quadrature over the ratio of two sample variances."""


@dataclass(frozen=True)
class MinimumDetectable:
    """The smallest true difference that a two-sided test at `level` finds with power .8; `n` is that of each row."""

    n: int
    pooled: float
    difference: float
    level: float


def paired_noncentrality(freedom: int, level: float) -> float:
    """The true difference in standard errors that a t test with that `freedom` finds with power .8."""
    return _solve(lambda ncp: paired_power(ncp, freedom, level))


def paired_power(ncp: float, freedom: int, level: float) -> float:
    """Power of a t test with that `freedom` for a true difference of `ncp` standard errors."""
    return float(_rejects(float(stdtrit(freedom, 1 - level / 2)), freedom, ncp))


def welch_noncentrality(n: int, level: float) -> float:
    """The true difference that Welch's test of two rows of `n` finds with power .8, in s sqrt(2 / n)."""
    return _solve(lambda ncp: welch_power(ncp, n, level))


def welch_power(ncp: float, n: int, level: float) -> float:
    """Power of Welch's test of two rows of `n` for a true difference of `ncp` standard errors.

    For equal variances of the rows: their pooled t is noncentral t with 2n - 2 degrees of freedom and independent of
    the share b of one sample variance in their sum, which is Beta((n-1)/2, (n-1)/2) and decides the degrees of freedom
    of the critical value, (n - 1) / (b^2 + (1 - b)^2). The power is the mean over b.
    """
    nodes, weights = leggauss(NODES)
    share = betaincinv((n - 1) / 2, (n - 1) / 2, (nodes + 1) / 2)
    critical = stdtrit((n - 1) / (share**2 + (1 - share) ** 2), 1 - level / 2)
    return float(weights / 2 @ _rejects(critical, 2 * n - 2, ncp))


def _rejects(critical: Floats | float, freedom: int, ncp: float) -> Floats:
    """P(|T| > critical) of a noncentral t; the far tail, where scipy gives NaN, is nothing."""
    return np.asarray(nct.sf(critical, freedom, ncp) + np.nan_to_num(nct.cdf(-np.asarray(critical), freedom, ncp)))


def _solve(power: Callable[[float], float]) -> float:
    high = 2.0
    while power(high) < POWER:
        high *= 1.5
    return float(brentq(lambda ncp: power(ncp) - POWER, 0.0, high))


def detectable_over_seeds(groups: Sequence[tuple[int, float]], comparisons: int = 1) -> MinimumDetectable | None:
    """Of two rows by Welch's test over seeds.

    Args:
        groups: seeds and sample SD of each row that is compared. n is the fewest seeds of a row that has two or more.
        comparisons: of the table; the level is that of Holm's first step, 5 % divided by them.

    Returns:
        None where no row has two seeds.
    """
    usable = [(n, spread) for n, spread in groups if n >= 2]
    if not usable:
        return None
    pooled = math.sqrt(sum((n - 1) * s**2 for n, s in usable) / sum(n - 1 for n, _ in usable))
    fewest, level = min(n for n, _ in usable), ALPHA / max(comparisons, 1)
    return MinimumDetectable(fewest, pooled, welch_noncentrality(fewest, level) * pooled * math.sqrt(2 / fewest), level)


def detectable_over_replicates(
    errors: Sequence[float], freedom: int, replicates: int, comparisons: int
) -> MinimumDetectable:
    """Of a row and the control by the paired test of `analysis.stats.paired`.

    Args:
        errors: the standard errors of the differences, pooled by their mean square.
        freedom: degrees of freedom of the test.
        replicates: in each row.
        comparisons: of the table; the level is that of Holm's first step, 5 % divided by them.
    """
    pooled, level = math.sqrt(float(np.mean(np.square(errors)))), ALPHA / max(comparisons, 1)
    return MinimumDetectable(replicates, pooled, paired_noncentrality(freedom, level) * pooled, level)
