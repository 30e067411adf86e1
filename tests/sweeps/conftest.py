"""A tiny data set and a study of it."""

from pathlib import Path

import numpy as np
import pytest
from fakes import STUDY

from mmkd.data import Split, write_dataset


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    splits = {}
    for split, n in {"train": 48, "valid": 24, "test": 24}.items():
        labels = np.arange(n) % 3
        arrays = {
            "video": rng.normal(size=(n, 8, 3)) + labels[:, None, None] * 0.5,
            "audio": rng.normal(size=(n, 6, 2)) + (labels == 1)[:, None, None],
            "language": rng.normal(size=(n, 4, 4)) + (labels == 2)[:, None, None],
        }
        splits[split] = Split(arrays={m: a.astype(np.float32) for m, a in arrays.items()}, labels=labels)
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    write_dataset(path, splits, classes=["a", "b", "c"], source="synthetic (tiny, for tests)", license="none")
    return path


@pytest.fixture
def study_file(tmp_path: Path, tiny_data: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(f'data = "{tiny_data}"\n{STUDY}')
    return path
