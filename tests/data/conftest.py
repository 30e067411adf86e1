"""A small data set that every test may vary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmkd.data import SPLITS, Split, write_dataset

FACTS = {"classes": ["no", "yes", "maybe"], "source": "synthetic (tests)", "license": "CC0-1.0"}


def make_splits(seed: int = 0, samples: int = 12) -> dict[str, Split]:
    """Two unaligned modalities; video of varying length, padded in front."""
    rng = np.random.default_rng(seed)
    splits = {}
    for name in SPLITS:
        video = rng.normal(2.0, 3.0, (samples, 6, 4)).astype("float32")
        audio = rng.normal(-1.0, 0.5, (samples, 9, 2)).astype("float16")
        lengths = rng.integers(1, 7, samples)
        video[np.arange(6) < 6 - lengths[:, None]] = 0.0
        splits[name] = Split(arrays={"video": video, "audio": audio}, labels=rng.integers(0, 3, samples))
    return splits


@pytest.fixture
def splits() -> dict[str, Split]:
    return make_splits()


@pytest.fixture
def data_file(tmp_path: Path, splits: dict[str, Split]) -> Path:
    path = tmp_path / "data.h5"
    write_dataset(path, splits, **FACTS, vectors={"video": 2}, notes="made by a test")
    return path
