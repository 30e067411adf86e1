"""Two one-sided tests hold their level at the margin, and clusters of samples give an interval that covers."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.equivalence import equivalence_p
from analysis.stats.over_samples import clustered_difference
from analysis.stats.scores import Difference, _equivalent


def test_the_larger_of_two_one_sided_tests_of_scipy() -> None:
    d = np.array([0.4, -0.3, 0.9, 0.2, 0.1, -0.4])
    error = d.std(ddof=1) / len(d) ** 0.5
    one_sided = [
        stats.ttest_1samp(d, 1.0, alternative="less").pvalue,
        stats.ttest_1samp(d, -1.0, alternative="greater").pvalue,
    ]
    assert equivalence_p(d.mean(), error, len(d) - 1, 1.0) == pytest.approx(max(one_sided))
    assert equivalence_p(1.0, error, 5, 1.0) == pytest.approx(0.5)


def test_a_difference_as_large_as_the_margin_is_called_equal_in_one_of_twenty() -> None:
    d = np.random.default_rng(0).normal(1.0, 1.0, (4000, 10))
    p = [equivalence_p(x.mean(), x.std(ddof=1) / 10**0.5, 9, 1.0) for x in d]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("groups", [6, 20])
def test_the_interval_over_groups_covers_where_one_over_samples_does_not(groups: int) -> None:
    rng = np.random.default_rng(groups)
    sizes = rng.integers(10, 30, groups)
    names = [str(name) for name in np.repeat(np.arange(groups), sizes)]
    covered = [0, 0]
    for _ in range(1000):
        d = np.repeat(rng.normal(0, 3, groups), sizes) + rng.normal(0, 10, len(names))
        for kind, of in enumerate((names, [])):
            found = clustered_difference(d, of)
            assert found.low is not None
            assert found.high is not None
            covered[kind] += found.low <= 0 <= found.high
    assert covered[0] >= 930
    assert covered[1] < 930


def test_one_group_has_no_interval() -> None:
    found = clustered_difference(np.array([1.0, 0.0, 2.0]), ["a", "a", "a"])
    assert (found.value, found.low, found.p) == (1.0, None, None)


def test_the_same_difference_in_all_replicates_is_not_tested() -> None:
    same = Difference(0.0, error=0.0, freedom=3)
    spread = Difference(1.0, error=0.5, freedom=3)
    assert _equivalent({"same": same, "spread": spread}, 2.0).keys() == {"spread"}
