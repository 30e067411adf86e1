"""The small data set as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import FACTS, make_splits

from mmkd.data import Split, write_dataset


@pytest.fixture
def splits() -> dict[str, Split]:
    return make_splits()


@pytest.fixture
def data_file(tmp_path: Path, splits: dict[str, Split]) -> Path:
    path = tmp_path / "data.h5"
    write_dataset(path, splits, **FACTS, vectors={"video": 2}, notes="made by a test")
    return path
