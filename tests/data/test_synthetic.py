from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mmkd.data import check_dataset, make_synthetic, read_info, read_split
from mmkd.data.splits import shared_groups
from mmkd.data.synthetic import GROUPS, SHARES
from mmkd.errors import UserError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "small.h5"
    make_synthetic(path)
    return path


def test_it_is_called_synthetic_and_passes_the_full_check(small: Path) -> None:
    info = check_dataset(small)
    assert info.source.startswith("synthetic")
    assert info.modalities == ("video", "audio", "language")
    assert len({*info.steps.values()}) == len({*info.features.values()}) == 3
    assert 0.36 < max(info.class_counts["train"]) / info.sizes["train"] < 0.46


@pytest.mark.parametrize(("size", "speakers"), [("small", 22), ("mosei", 28)])
def test_each_speaker_is_in_one_split(size: Literal["small", "mosei"], speakers: int, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "s.h5", size)
    info = read_info(tmp_path / "s.h5")
    assert shared_groups(info) == {}
    assert sum(map(len, info.group_counts.values())) == speakers
    assert len({n for counts in info.group_counts.values() for n in counts.values()}) == 1


def test_its_samples_stay_what_they_were(small: Path) -> None:
    assert read_info(small).fingerprint.startswith("15e5ab7c400f")


def test_seed_and_size_determine_it(small: Path, tmp_path: Path) -> None:
    again = make_synthetic(tmp_path / "again.h5")
    assert again == check_dataset(small).fingerprint
    assert make_synthetic(tmp_path / "other.h5", seed=1) != again


def test_lengths_vary_in_every_modality(small: Path) -> None:
    train = read_split(small, "train")
    assert all(len(np.unique(lengths)) > 4 for lengths in train.lengths.values())


def _accuracy(path: Path, modalities: list[str]) -> float:
    """Test accuracy of a linear classifier (ridge regression on one-hot labels) on pooled features."""

    def pooled(split: str) -> tuple[np.ndarray, np.ndarray]:
        data = read_split(path, split, modalities)
        parts = [f for a in data.arrays.values() for f in (a.mean(axis=1), a.max(axis=1))]
        return np.hstack([*parts, np.ones((len(data), 1))]), data.labels

    x, labels = pooled("train")
    weights = np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ np.eye(7)[labels])
    x, labels = pooled("test")
    return float(((x @ weights).argmax(axis=1) == labels).mean())


def test_all_modalities_tell_more_than_video_alone_and_video_more_than_nothing(small: Path) -> None:
    everything, video = _accuracy(small, ["video", "audio", "language"]), _accuracy(small, ["video"])
    majority = max(check_dataset(small).class_counts["test"]) / 800
    assert everything > video + 0.08
    assert video > majority + 0.02


def test_no_modality_separates_all_classes_and_together_they_do() -> None:
    assert all(len(set(groups)) < len(SHARES) for groups in GROUPS.values())
    assert len(set(zip(*GROUPS.values(), strict=True))) == len(SHARES)
    assert sum(SHARES) == pytest.approx(1.0)


def test_an_unknown_size_is_answered_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown size 'large' \(choices: mosei, small\)"):
        make_synthetic(tmp_path / "x.h5", "large")  # type: ignore[arg-type]
