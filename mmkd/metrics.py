"""Metrics of predictions; recomputable at any time from what a result stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def lower_is_better(metric: str) -> bool:
    """True if less of a selection metric is better."""
    return metric == "loss"


def best_trial(metric: str, values: Mapping[int, float]) -> int | None:
    """Choose the best by `metric` of trials' `values` by number, the earliest among equals; None if there is none."""
    sign = 1 if lower_is_better(metric) else -1
    return min(values, key=lambda number: (sign * values[number], number), default=None)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Probabilities of logits (N, C)."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def cross_entropy(logits: Floats, labels: Ints) -> float:
    """Mean of -log p(label) over N samples, in nats."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    log_normaliser = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_normaliser - shifted[np.arange(len(labels)), labels]))


def f1_scores(predicted: Ints, labels: Ints, classes: int) -> tuple[float, float]:
    """Weighted and macro F1 over the classes that occur in `labels` or `predicted` (scikit-learn's convention)."""
    counts = confusion_counts(labels, predicted, classes)
    support, both = counts.sum(1), counts.sum(0) + counts.sum(1)
    occurs = both > 0
    scores = 2 * np.diagonal(counts)[occurs] / both[occurs]
    return float(np.average(scores, weights=support[occurs])), float(np.mean(scores))


def confusion_counts(labels: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """Counts (C, C) of samples: true class by predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def classification_metrics(logits: Floats, labels: Ints, commonest: int) -> dict[str, float]:
    """Metrics of logits (N, C) against labels (N,), all fractions but the loss.

    `commonest` is the most frequent class of train: `majority_share` is how often it is predicted, `majority_accuracy`
    what predicting nothing else would get. `recall_<class index>` is absent for a class that does not occur.
    """
    predicted = np.argmax(logits, axis=1)
    weighted, macro = f1_scores(predicted, labels, logits.shape[1])
    metrics = {
        "loss": cross_entropy(logits, labels),
        "accuracy": float(np.mean(predicted == labels)),
        "weighted_f1": weighted,
        "macro_f1": macro,
        "majority_share": float(np.mean(predicted == commonest)),
        "majority_accuracy": float(np.mean(labels == commonest)),
    }
    for c in np.unique(labels):
        metrics[f"recall_{c}"] = float(np.mean(predicted[labels == c] == c))
    return metrics


def score_metrics(logits: Floats, scores: Floats, centres: Floats) -> dict[str, float]:
    """Metrics of the expected score sum_c p_c centre_c against scores (N,), of which those that apply; MulT's names.

    mae and correlation (0 where either side is constant) apply to every range. acc7 and acc5 round half to even after
    clipping to 3 and 2; they are there for centres from -3 to 3 alone. acc2 and its weighted F1 compare signs (> 0) and
    leave out samples whose true score is 0; they are there for ranges around 0, unless there is no other sample.
    `acc2_f1` equals scikit-learn's weighted F1; MulT's code passes labels and predictions in each other's place, so
    that it weights by the predicted classes.
    """
    expected = softmax(logits) @ np.asarray(centres, np.float64)
    truth = np.asarray(scores, np.float64)
    first, last = float(centres[0]), float(centres[-1])
    metrics: dict[str, float] = {}
    if (first, last) == (-3.0, 3.0):
        for bound in (3, 2):
            right = np.round(np.clip(expected, -bound, bound)) == np.round(np.clip(truth, -bound, bound))
            metrics[f"acc{2 * bound + 1}"] = float(np.mean(right))
    signed = truth != 0
    if first == -last and signed.any():
        predicted, positive = (expected[signed] > 0).astype(int), (truth[signed] > 0).astype(int)
        metrics["acc2"] = float(np.mean(predicted == positive))
        metrics["acc2_f1"] = f1_scores(predicted, positive, 2)[0]
    metrics["mae"] = float(np.mean(np.abs(expected - truth)))
    varies = expected.std() > 0 and truth.std() > 0
    metrics["correlation"] = float(np.corrcoef(expected, truth)[0, 1]) if varies else 0.0
    return metrics
