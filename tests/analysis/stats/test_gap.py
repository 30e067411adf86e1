"""The gap recovered has an interval that holds its level, and none where the teacher may be no better."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.gap import Contrast, gap_recovered
from analysis.stats.paired import Replicated, paired


def replicated(values: np.ndarray) -> Replicated:
    nothing = np.zeros((len(values), 0))
    return Replicated(tuple(range(len(values))), values, (), nothing, nothing)


def over_seeds(student: np.ndarray, teacher: np.ndarray, control: np.ndarray) -> tuple[Contrast, Contrast, Contrast]:
    pairs = ((student, control), (teacher, control), (student, teacher))
    first, second, third = (Contrast.of_samples(a, b) for a, b in pairs)
    return first, second, third


def test_the_ends_are_the_gaps_that_a_t_test_does_not_reject() -> None:
    """For the true gap g, (student - control) - g (teacher - control) is 0 in the mean: Fieller's idea."""
    rng = np.random.default_rng(0)
    control, student, teacher = (rng.normal(mean, 1, 8) for mean in (70, 74, 80))
    contrasts = [paired(replicated(a), replicated(b)) for a, b in ((student, control), (teacher, control))]
    between = paired(replicated(student), replicated(teacher))
    found = gap_recovered(*map(Contrast.of_pairs, (*contrasts, between)))
    assert found is not None
    assert found.value == pytest.approx((student - control).mean() / (teacher - control).mean())
    for end in (found.low, found.high):
        assert stats.ttest_1samp((student - control) - end * (teacher - control), 0).pvalue == pytest.approx(0.05)


def test_there_is_no_gap_to_a_teacher_that_may_be_no_better() -> None:
    control, student = np.array([70.0, 71.0, 72.0]), np.array([74.0, 75.0, 76.0])
    assert gap_recovered(*over_seeds(student, np.array([71.0, 72.0, 73.0]), control)) is None  # 400 %, it was
    assert gap_recovered(*over_seeds(student, np.array([60.0, 61.0, 62.0]), control)) is None
    assert gap_recovered(*over_seeds(student[:1], np.array([80.0]), control[:1])) is None
    assert gap_recovered(*over_seeds(student, np.array([79.0, 80.0, 81.0]), control)) is not None


@pytest.mark.parametrize("n", [3, 8])
def test_the_interval_covers_the_truth(n: int) -> None:
    rng, covered, known = np.random.default_rng(n), 0, 0
    for _ in range(2000):
        found = gap_recovered(*over_seeds(rng.normal(74, 1, n), rng.normal(80, 1, n), rng.normal(70, 1, n)))
        known += found is not None
        covered += found is not None and found.low <= 0.4 <= found.high
    assert known > 1900
    assert covered / known >= 0.94
