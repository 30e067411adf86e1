"""Tests between rows: over a few seeds each (Welch, Holm, Games-Howell), over the same samples (McNemar, bootstrap).

Measured on simulated equal methods (tests/analysis): testing all against the observed best at 5 % without correction
calls a false alarm in a fifth to a third of all tables; Holm-Welch against a control that was declared beforehand, and
Games-Howell for "as good as the best", in at most one in twenty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtr, stdtrit

from analysis.loading.frames import Floats
from analysis.stats.uncertainty import ALPHA

PAIRS_NEEDED = 29
"""Pairs of runs that an estimate of P(A > B) needs to tell .75 from .5 (Bouthillier et al. 2021)."""


@dataclass(frozen=True)
class Welch:
    """Mean of A minus mean of B, its 95 % interval and two-sided p, its standard error and degrees of freedom.

    NaN where a side has under two values or neither side varies. Arrays where the samples had leading axes.
    """

    difference: Floats
    low: Floats
    high: Floats
    p: Floats
    error: Floats
    freedom: Floats


def welch(a: ArrayLike, b: ArrayLike) -> Welch:
    """Welch's t test and interval of samples (..., n) and (..., m), along the last axis."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = first.mean(axis=-1) - second.mean(axis=-1)
    if min(first.shape[-1], second.shape[-1]) < 2:
        unknown = np.full_like(difference, np.nan)
        return Welch(difference, *[unknown] * 5)
    # Where neither side varies there is nothing to divide by, and nothing is claimed.
    varies = (np.ptp(first, axis=-1) > 0) | (np.ptp(second, axis=-1) > 0)
    parts = [sample.var(axis=-1, ddof=1) / sample.shape[-1] for sample in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(parts[0] + parts[1])
        sizes = (first.shape[-1], second.shape[-1])
        freedom = error**4 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
        half = error * stdtrit(freedom, 1 - ALPHA / 2)
        p = 2 * stdtr(freedom, -np.abs(difference) / error)
    found = (difference - half, difference + half, p, error, freedom)
    return Welch(difference, *(np.where(varies, value, np.nan) for value in found))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p values of one family; NaN stay NaN and are no members of it."""
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    corrected, largest = list(p), 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected


def games_howell(samples: Sequence[Floats], best: int, wanted: Sequence[int] | None = None) -> Floats:
    """Games-Howell's p values (over all pairs) of sample `best` with each, or each `wanted`; NaN if neither varies.

    Equal to a row of `scipy.stats.tukey_hsd(*samples, equal_var=False)`, which is slow because it
    computes all pairs.
    """
    from scipy.stats import studentized_range

    studentized, count, freedom = _studentized(samples, best)
    chosen = slice(None) if wanted is None else list(wanted)
    return np.asarray(studentized_range.sf(studentized[chosen], count, freedom[chosen]))


def _studentized(samples: Sequence[Floats], best: int) -> tuple[Floats, int, Floats]:
    """Studentized ranges between sample `best` and each, the number of samples, and the degrees of freedom."""
    sizes = np.array([len(sample) for sample in samples])
    means, variances = (np.array([f(sample) for sample in samples]) for f in (np.mean, lambda x: x.var(ddof=1)))
    parts = variances / sizes
    error = np.sqrt((parts + parts[best]) / 2)
    freedom = (parts + parts[best]) ** 2 / (parts**2 / (sizes - 1) + parts[best] ** 2 / (sizes[best] - 1))
    return np.abs(means - means[best]) / error, len(samples), freedom


def _differ(samples: Sequence[Floats], best: int) -> NDArray[np.bool_]:
    """True for samples whose Games-Howell p value against `best` is at most 5 %.

    p is at least that of a t test of the pair alone, and at most that times the number of pairs. The integral behind
    p (10 ms each, and scipy.stats takes half a second to import) is needed only where these leave it open.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        studentized, count, freedom = _studentized(samples, best)
        least = 2 * stdtr(freedom, -studentized / math.sqrt(2))
    differ = np.asarray(least * (count * (count - 1) / 2) <= ALPHA)
    is_open = [int(k) for k in np.flatnonzero((least <= ALPHA) & ~differ) if k != best]
    if is_open:
        differ[is_open] = games_howell(samples, best, is_open) <= ALPHA
    return differ


def tied_with_best(groups: Sequence[ArrayLike]) -> list[bool | None]:
    """True for groups that Games-Howell at 5 %, over all pairs, does not find different from the one of the best mean.

    The best itself is True. None where it or the group has under two values, or neither of the two varies.
    """
    samples = [np.asarray(group, np.float64) for group in groups]
    best = max(range(len(samples)), key=lambda k: samples[k].mean())
    tested = [k for k, sample in enumerate(samples) if len(sample) > 1]
    tied: dict[int, bool | None] = {}
    if best in tested and len(tested) > 1:
        differ = _differ([samples[k] for k in tested], tested.index(best))
        known = [np.ptp(samples[k]) > 0 or np.ptp(samples[best]) > 0 for k in tested]
        tied = {k: not differs if varies else None for k, differs, varies in zip(tested, differ, known, strict=True)}
    return [True if k == best else tied.get(k) for k in range(len(samples))]


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test of two runs on the same samples, right (True) or wrong.

    Returns:
        samples that A alone got right, those that B alone did, and the two-sided binomial p (1 where there are none).
    """
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def clustered_mcnemar(differences: Floats) -> float:
    """McNemar's test where each sample was classified several times (Durkalski et al. 2003), two-sided p.

    Args:
        differences: (N,), for each sample the share of A's runs that got it right minus that of B's.

    The runs of one sample are not independent, so they are one cluster: z = sum d / sqrt(sum d^2).
    """
    squared = float(np.sum(differences**2))
    return float(2 * ndtr(-abs(np.sum(differences)) / math.sqrt(squared))) if squared else 1.0


def paired_bootstrap(differences: Floats, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `differences` (N,), when the N samples are drawn again.

    The differences are those of paired samples, so that drawing them draws the pairs.
    """
    if len(differences) < 2:
        return float(differences[0]), float(differences[0])
    from scipy.stats import bootstrap

    batch = max(1, 2_000_000 // len(differences))  # all draws at once would be gigabytes
    options = {"n_resamples": draws, "batch": batch, "method": "percentile", "rng": seed}
    low, high = bootstrap((differences,), np.mean, confidence_level=1 - ALPHA, **options).confidence_interval
    return float(low), float(high)


def probability_of_better(a: Sequence[float], b: Sequence[float]) -> float:
    """P(A > B): the share of pairs (run k of A, run k of B) that A wins, a draw counting half."""
    wins = [(first > second) + 0.5 * (first == second) for first, second in zip(a, b, strict=True)]
    return float(np.mean(wins))
