"""Two one-sided tests: that a difference is smaller than a margin (Schuirmann 1987)."""

from __future__ import annotations

from scipy.special import stdtr


def equivalence_p(difference: float, error: float, freedom: float, margin: float) -> float:
    """p of the hypothesis that the true difference is `margin` or more away from zero.

    Args:
        difference: as measured, in the margin's unit.
        error: its standard error.
        freedom: of its t.
        margin: above zero. At p < .05 the 90 % interval of the difference lies within plus and minus the margin.
    """
    return float(max(stdtr(freedom, (difference - margin) / error), stdtr(freedom, -(difference + margin) / error)))
