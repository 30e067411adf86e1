"""Reference models see what is real, choose by validation, and are scored as scikit-learn scores."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from analysis.stats import linear_model
from analysis.stats.linear_model import fit_references, sequences, summary
from mmkd.data import Split, read_info, read_split


def test_summary_statistics_are_over_real_steps_alone() -> None:
    array = np.zeros((2, 4, 1), np.float32)
    array[0, 1:, 0] = [1, 2, 6]
    array[1, 3:, 0] = [-5]
    split = Split(arrays={"m": array}, labels=np.array([0, 1]), lengths={"m": np.array([3, 1])})
    assert summary(split, "m") == pytest.approx(np.array([[3, np.std([1, 2, 6]), 1, 6], [-5, 0, -5, -5]]))


def test_long_sequences_are_averaged_over_consecutive_steps() -> None:
    array = np.arange(10, dtype=np.float32).reshape(1, 5, 2)
    assert sequences(array, 1).tolist() == [list(range(10))]
    assert sequences(array, 2).tolist() == [[0, 0.5, 3, 4, 7, 8]]  # steps 0; 1 and 2; 3 and 4


def test_the_better_features_by_validation_are_scored_on_test(small_data: tuple[Path, str]) -> None:
    info = read_info(small_data[0])
    majority, features, scores = fit_references(info, ["video"])
    labels = read_split(info, "test", ["video"]).labels
    commonest = np.bincount(read_split(info, "train", ["video"]).labels).argmax()
    constant = np.full(len(labels), commonest)
    assert majority["accuracy"] == pytest.approx(np.mean(labels == commonest))
    assert majority["macro_f1"] == pytest.approx(f1_score(labels, constant, average="macro", zero_division=0))
    labels_of, found = linear_model._read(info, ["video"])
    each = {name: linear_model._fit(parts, labels_of, len(info.classes)) for name, parts in found.items()}
    assert features == max(each, key=lambda name: each[name]["valid"]["accuracy"])
    assert scores == each[features]


def test_a_train_of_one_class_is_no_error() -> None:
    x = {part: np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) for part in ("train", "valid", "test")}
    y = {"train": np.zeros(5, np.int64), "valid": np.zeros(5, np.int64), "test": np.array([0, 0, 1, 1, 1])}
    assert linear_model._fit(x, y, 2)["test"]["accuracy"] == pytest.approx(0.4)
