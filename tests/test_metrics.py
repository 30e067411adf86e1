"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmkd.metrics import (
    best_trial,
    classification_metrics,
    confusion_counts,
    cross_entropy,
    f1_scores,
    score_metrics,
    softmax,
)

SEVEN = np.linspace(-3, 3, 7)


def logits_of(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predicted] * 5.0


def sure(scores: list[float]) -> np.ndarray:
    """Logits over the seven classes of MOSEI whose expected score is exactly the given one."""
    logits = np.full((len(scores), 7), -np.inf)
    for row, score in zip(logits, scores, strict=True):
        lower = min(math.floor(score), 2)
        share = score - lower
        with np.errstate(divide="ignore"):
            row[lower + 3], row[lower + 4] = np.log(1 - share), np.log(share)
    return logits


def test_softmax_gives_probabilities_and_does_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 3.0], [2.0, 2.0]])), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4]], np.float32)), [[0.5, 0.5]])


def test_the_loss_is_the_mean_of_minus_log_p() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert cross_entropy(logits, np.array([0, 1])) == pytest.approx((math.log(2) + math.log(10)) / 2)
    assert cross_entropy(logits + 1e5, np.array([0, 1])) == pytest.approx((math.log(2) + math.log(10)) / 2)


def test_f1_of_three_classes() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 0, 2, 0])
    # class 0: 3 of 5 predicted, 3 of 4 true; class 1: 1 of 2, 1 of 2; class 2: 1 of 1, 1 of 2
    by_class = [2 * 3 / 9, 2 * 1 / 4, 2 * 1 / 3]
    weighted, macro = f1_scores(predicted, labels, 3)
    assert weighted == pytest.approx((4 * by_class[0] + 2 * by_class[1] + 2 * by_class[2]) / 8)
    assert macro == pytest.approx(sum(by_class) / 3)


def test_a_class_that_is_predicted_and_never_true_counts_in_macro_f1_alone() -> None:
    weighted, macro = f1_scores(np.array([0, 0, 2]), np.array([0, 0, 0]), 4)
    assert weighted == pytest.approx(0.8)
    assert macro == pytest.approx(0.4)  # class 2 has 0; classes 1 and 3 do not occur


def test_classification_metrics_of_six_samples() -> None:
    labels = np.array([0, 0, 0, 1, 1, 3])
    metrics = classification_metrics(logits_of([0, 0, 1, 1, 0, 0], 4), labels, commonest=0)
    right = math.log(math.exp(5) + 3) - 5
    assert metrics.pop("loss") == pytest.approx((3 * right + 3 * (right + 5)) / 6)
    # F1: class 0: 2 * 2 / (4 + 3), class 1: 2 * 1 / (2 + 2), class 3: 0
    assert metrics == pytest.approx(
        {
            "accuracy": 3 / 6,
            "weighted_f1": (3 * 4 / 7 + 2 * 0.5) / 6,
            "macro_f1": (4 / 7 + 0.5) / 3,
            "majority_share": 4 / 6,
            "majority_accuracy": 3 / 6,
            "recall_0": 2 / 3,
            "recall_1": 1 / 2,
            "recall_3": 0.0,
        }
    )


def test_the_majority_is_the_given_class_and_not_that_of_the_split() -> None:
    metrics = classification_metrics(logits_of([2, 2, 0], 3), np.array([0, 0, 2]), commonest=2)
    assert metrics["majority_share"] == pytest.approx(2 / 3)
    assert metrics["majority_accuracy"] == pytest.approx(1 / 3)


def test_the_expected_score_is_compared() -> None:
    even = np.where([[1, 0, 0, 0, 0, 0, 1]], 0.0, -np.inf)
    assert score_metrics(even, np.array([0.4]), SEVEN)["mae"] == pytest.approx(0.4)


def test_acc7_rounds_half_to_even() -> None:
    expected = [0.5, 1.5, 2.5, -0.5, -1.5]  # to 0, 2, 2, 0, -2
    truth = np.array([0.0, 2.0, 2.0, 0.0, -2.0])
    assert score_metrics(sure(expected), truth, SEVEN)["acc7"] == 1.0
    assert score_metrics(sure(truth.tolist()), np.array(expected), SEVEN)["acc7"] == 1.0
    assert score_metrics(sure(expected), np.array([1.0, 1.0, 3.0, -1.0, -1.0]), SEVEN)["acc7"] == 0.0


def test_acc5_clips_to_two_before_it_rounds() -> None:
    metrics = score_metrics(sure([3.0, -2.6, 2.0, 1.0]), np.array([2.0, -2.0, 3.0, 3.0]), SEVEN)
    assert metrics["acc5"] == pytest.approx(3 / 4)
    assert metrics["acc7"] == 0.0


def test_scores_beyond_three_are_clipped_for_acc7() -> None:
    assert score_metrics(sure([3.0, -3.0]), np.array([3.7, -4.0]), SEVEN)["acc7"] == 1.0


def test_acc2_leaves_out_true_zeros_and_takes_a_predicted_zero_for_negative() -> None:
    metrics = score_metrics(sure([1.0, -1.0, 0.0, 2.0, 0.0]), np.array([0.0, -2.0, -1.0, -0.5, 3.0]), SEVEN)
    # left: -1 for -2 right, 0 for -1 right, 2 for -0.5 wrong, 0 for 3 wrong
    assert metrics["acc2"] == pytest.approx(2 / 4)
    # negative: 2 hits, 3 predicted, 3 true; positive: 0 hits
    assert metrics["acc2_f1"] == pytest.approx((3 * 2 * 2 / 6 + 0) / 4)


def test_acc2_is_absent_where_all_scores_are_zero() -> None:
    metrics = score_metrics(sure([1.0, -1.0]), np.array([0.0, 0.0]), SEVEN)
    assert "acc2" not in metrics
    assert "acc2_f1" not in metrics
    assert metrics["mae"] == pytest.approx(1.0)


def test_the_correlation_is_pearsons_and_0_where_a_side_is_constant() -> None:
    expected, truth = [1.0, 2.0, 3.0], np.array([1.0, 3.0, 2.0])
    assert score_metrics(sure(expected), truth, SEVEN)["correlation"] == pytest.approx(0.5)
    assert score_metrics(sure([1.0, 1.0, 1.0]), truth, SEVEN)["correlation"] == 0.0
    assert score_metrics(sure(expected), np.ones(3), SEVEN)["correlation"] == 0.0


def test_the_best_trial_is_the_lowest_loss_or_the_highest_score_and_the_earliest_of_equals() -> None:
    values = {3: 0.2, 1: 0.5, 2: 0.2, 4: 0.5}
    assert best_trial("loss", values) == 2
    assert best_trial("macro_f1", values) == 1
    assert best_trial("loss", {}) is None


def test_confusion_counts_are_true_by_predicted_class() -> None:
    counts = confusion_counts(np.array([0, 0, 2]), np.array([0, 2, 2]), 3)
    assert counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        (-3, 3, {"acc7", "acc5", "acc2", "acc2_f1", "mae", "correlation"}),
        (-1, 1, {"acc2", "acc2_f1", "mae", "correlation"}),
        (1, 5, {"mae", "correlation"}),
        (-2, 5, {"mae", "correlation"}),
    ],
)
def test_only_metrics_that_apply_to_the_range_are_there(first: float, last: float, names: set[str]) -> None:
    rng = np.random.default_rng(0)
    centres = np.linspace(first, last, 5)
    assert set(score_metrics(rng.normal(size=(30, 5)), rng.uniform(first, last, 30), centres)) == names


def test_mults_accuracies_are_for_scores_from_minus_three_to_three_alone() -> None:
    found = score_metrics(sure([1.0, -1.0]), np.array([1.0, 4.0]), np.linspace(0, 6, 7))
    assert sorted(found) == ["correlation", "mae"]
