"""The gap recovered, (student - control) / (teacher - control), with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit

from analysis.loading.frames import Floats
from analysis.stats.paired import Paired
from analysis.stats.uncertainty import ALPHA


@dataclass(frozen=True)
class Contrast:
    """A difference of two means, its standard error (NaN: not known), and the degrees of freedom of its t."""

    difference: float
    error: float
    freedom: int

    @classmethod
    def of_pairs(cls, test: Paired) -> Contrast:
        """The contrast of a test over replicates."""
        return cls(test.difference, test.error, test.freedom)

    @classmethod
    def of_samples(cls, a: Floats, b: Floats) -> Contrast:
        """The mean of `a` less that of `b`, each over its own seeds; freedom is that of the smaller sample."""
        smaller = min(len(a), len(b))
        error = math.sqrt(sum(x.var(ddof=1) / len(x) for x in (a, b))) if smaller > 1 else math.nan
        return cls(float(a.mean() - b.mean()), error, smaller - 1)


@dataclass(frozen=True)
class Gap:
    """The gap recovered and its 95 % interval, as shares of 1."""

    value: float
    low: float
    high: float


def gap_recovered(student: Contrast, teacher: Contrast, between: Contrast) -> Gap | None:
    """The gap and its 95 % interval by Fieller's theorem (1954).

    The interval is finite only where the teacher's difference to the control is significant at 5 %, and the ratio says
    something only then.

    Args:
        student: the student less the control.
        teacher: the teacher less the control.
        between: the student less the teacher, whose variance gives the covariance of the other two.

    Returns:
        None where the teacher is not shown to be better than the control, or nothing is known of the variance.
    """
    a, b = student.difference, teacher.difference
    va, vb, vab = student.error**2, teacher.error**2, between.error**2
    freedom = min(student.freedom, teacher.freedom, between.freedom)
    if freedom < 1 or not vb > 0:
        return None
    t = float(stdtrit(freedom, 1 - ALPHA / 2))
    covariance = (va + vb - vab) / 2
    scale = b * b - t * t * vb
    if not (b > 0 and scale > 0):
        return None
    middle = a * b - t * t * covariance
    half = math.sqrt(max(middle**2 - scale * (a * a - t * t * va), 0.0))
    return Gap(a / b, (middle - half) / scale, (middle + half) / scale)
