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
from scipy.special import bdtr, ndtr, stdtr, stdtrit

from analysis.stats.uncertainty import ALPHA, Floats

PAIRS_NEEDED = 29
"""Pairs of runs that an estimate of P(A > B) needs to tell .75 from .5 (Bouthillier et al. 2021)."""


@dataclass(frozen=True)
class Welch:
    """Mean of A minus mean of B, its 95 % interval and two-sided p; NaN where a side has under two values or neither
    side varies. Arrays where the samples had leading axes."""

    difference: Floats
    low: Floats
    high: Floats
    p: Floats


def welch(a: ArrayLike, b: ArrayLike) -> Welch:
    """Welch's t test and interval of samples (..., n) and (..., m), along the last axis."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = first.mean(axis=-1) - second.mean(axis=-1)
    if min(first.shape[-1], second.shape[-1]) < 2:
        unknown = np.full_like(difference, np.nan)
        return Welch(difference, unknown, unknown, unknown)
    error, freedom = _error_and_freedom(
        _squared_error(first), first.shape[-1], _squared_error(second), second.shape[-1]
    )
    half = error * stdtrit(freedom, 1 - ALPHA / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stdtr(freedom, -np.abs(difference) / error)
    return Welch(difference, difference - half, difference + half, np.asarray(p))


def _squared_error(values: Floats) -> Floats:
    return np.asarray(values.var(axis=-1, ddof=1) / values.shape[-1])


def _error_and_freedom(a: Floats, n: ArrayLike, b: Floats, m: ArrayLike) -> tuple[Floats, Floats]:
    """Standard error of a difference and Welch-Satterthwaite's degrees of freedom, of two squared standard errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (a + b) ** 2 / (a**2 / (np.asarray(n) - 1) + b**2 / (np.asarray(m) - 1))
    # Where neither side varies there is nothing to divide by, and nothing is claimed.
    return np.where(a + b > 0, np.sqrt(a + b), np.nan), freedom


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p values of one family; NaN stay NaN and are no members of it."""
    known = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    corrected, largest = list(p), 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected


def tied_with_best(groups: Sequence[ArrayLike]) -> list[bool | None]:
    """Which groups are not told apart from the one of the highest mean, by Games-Howell at 5 % over all pairs.

    The best itself is True. None where it or the group has under two values, or neither of the two varies.
    """
    samples = [np.asarray(group, np.float64) for group in groups]
    best = max(range(len(samples)), key=lambda k: samples[k].mean())
    size = sum(len(sample) > 1 for sample in samples)
    return [True if k == best else _not_told_apart(samples[best], sample, size) for k, sample in enumerate(samples)]


def _not_told_apart(best: Floats, other: Floats, groups: int) -> bool | None:
    if min(len(best), len(other)) < 2:
        return None
    error, freedom = _error_and_freedom(_squared_error(best), len(best), _squared_error(other), len(other))
    if np.isnan(error):
        return None
    t = float((best.mean() - other.mean()) / error)
    p = float(2 * stdtr(freedom, -t))
    # The p of this pair alone is never above Games-Howell's, and a hundred times quicker to have.
    if groups == 2 or p > ALPHA:
        return p > ALPHA
    from scipy.stats import studentized_range  # most of a second to import

    return bool(studentized_range.sf(t * math.sqrt(2), groups, freedom) > ALPHA)


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test of two runs on the same samples, right (True) or wrong.

    Returns:
        samples that A alone got right, those that B alone did, and the two-sided binomial p (1 where there are none).
    """
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)) if only_a + only_b else 1.0
    return only_a, only_b, min(1.0, 2 * tail)


def clustered_mcnemar(differences: Floats) -> float:
    """McNemar's test where each sample was classified several times (Durkalski et al. 2003), two-sided p.

    Args:
        differences: (N,), for each sample the share of A's runs that got it right minus that of B's.

    The runs of one sample are not independent, so they are one cluster: z = sum d / sqrt(sum d^2).
    """
    squared = float(np.sum(differences**2))
    return float(2 * ndtr(-abs(np.sum(differences)) / math.sqrt(squared))) if squared else 1.0


def paired_bootstrap(differences: Floats, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `differences` (N,), when the N samples are drawn anew."""
    rng, size = np.random.default_rng(seed), len(differences)
    chunk = max(1, 2_000_000 // size)  # all draws at once would be gigabytes
    drawn = [min(chunk, draws - done) for done in range(0, draws, chunk)]
    means = np.concatenate([differences[rng.integers(size, size=(k, size))].mean(axis=1) for k in drawn])
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def probability_of_better(a: Sequence[float], b: Sequence[float]) -> float:
    """P(A > B): the share of pairs (run k of A, run k of B) that A wins, a draw counting half."""
    wins = [(first > second) + 0.5 * (first == second) for first, second in zip(a, b, strict=True)]
    return float(np.mean(wins))
