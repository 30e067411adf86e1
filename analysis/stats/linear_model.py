"""Untuned reference models: the most frequent class, and logistic regression on sequences and on summary statistics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmkd.data import DatasetInfo, Split, read_split
from mmkd.data.dataset import SPLITS, chunks, is_padding
from mmkd.metrics import f1_scores

Array = NDArray[np.float32]

LARGEST = 20_000_000
"""Values of a training matrix. Steps of longer sequences are averaged in twos, threes and so on, so that a fit takes
seconds."""
C, ITERATIONS = 1.0, 300
"""scikit-learn's default regularisation, and at most so many steps of L-BFGS."""


def fit_references(
    info: DatasetInfo, modalities: Sequence[str]
) -> tuple[Mapping[str, float], str, Mapping[str, Mapping[str, float]]]:
    """Fit the reference models of these modalities on `train` of a data set, divided as `info` says.

    Returns:
        test scores of the most frequent class; the features of the linear model that is better by accuracy on valid
        ("sequences" or "summary"); and its scores on valid and test.
    """
    labels, features = _read(info, modalities)
    classes = len(info.classes)
    commonest = np.argmax(np.bincount(labels["train"], minlength=classes))
    majority = _scores(np.full_like(labels["test"], commonest), labels["test"], classes)
    models = {name: _fit(parts, labels, classes) for name, parts in features.items()}
    best = max(models, key=lambda name: models[name]["valid"]["accuracy"])
    return majority, best, models[best]


def _read(
    info: DatasetInfo, modalities: Sequence[str]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, dict[str, Array]]]:
    """Labels (N,) by split, and features (N, D) by name and split."""
    labels: dict[str, NDArray[np.int64]] = {}
    features: dict[str, dict[str, Array]] = {"sequences": {}, "summary": {}}
    values = info.sizes["train"] * sum(info.steps[m] * info.features[m] for m in modalities)
    together = math.ceil(values / LARGEST)
    for name in SPLITS:
        parts: dict[str, list[Array]] = {"sequences": [], "summary": []}
        for modality in modalities:
            split = read_split(info, name, [modality])
            labels[name] = split.labels
            parts["sequences"].append(sequences(split.arrays[modality], together))
            parts["summary"].append(summary(split, modality))
        for kind, found in parts.items():
            features[kind][name] = np.concatenate(found, axis=1)
    return labels, features


def sequences(array: Array, together: int) -> Array:
    """Flatten sequences (N, T, F), each `together` of their steps averaged, the first ones with zeros before them."""
    samples, steps, width = array.shape
    before = -steps % together
    padded = np.pad(array, ((0, 0), (before, 0), (0, 0))) if before else array
    return np.asarray(padded.reshape(samples, -1, together, width).mean(axis=2).reshape(samples, -1), np.float32)


def summary(split: Split, modality: str) -> Array:
    """Mean, standard deviation, minimum and maximum (N, 4 F) of each feature over a sample's real steps."""
    array, lengths = split.arrays[modality], split.lengths[modality]
    found = []
    for rows in chunks(array):
        real = ~is_padding(lengths[rows], array.shape[1])[..., None]
        x, count = array[rows], lengths[rows][:, None]
        mean = (x * real).sum(axis=1) / count
        spread = np.sqrt((((x - mean[:, None]) * real) ** 2).sum(axis=1) / count)
        least, most = (edge(np.where(real, x, far), axis=1) for edge, far in ((np.min, np.inf), (np.max, -np.inf)))
        found.append(np.concatenate([mean, spread, least, most], axis=1))
    return np.concatenate(found).astype(np.float32)


def _fit(x: Mapping[str, Array], y: Mapping[str, NDArray[np.int64]], classes: int) -> Mapping[str, Mapping[str, float]]:
    """Scores on valid and test of a logistic regression on train; features are standardised over its samples."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(x["train"])
    predict: Callable[[Array], NDArray[np.int64]]
    if len(np.unique(y["train"])) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a reference need not be the best one
            predict = LogisticRegression(C=C, max_iter=ITERATIONS).fit(scale.transform(x["train"]), y["train"]).predict
    else:
        predict = lambda features: np.full(len(features), y["train"][0])  # noqa: E731
    return {part: _scores(predict(scale.transform(x[part])), y[part], classes) for part in ("valid", "test")}


def _scores(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Mapping[str, float]:
    weighted, macro = f1_scores(predicted, labels, classes)
    return {"accuracy": float(np.mean(predicted == labels)), "weighted_f1": weighted, "macro_f1": macro}
