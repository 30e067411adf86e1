"""The Python of docs/adding-data.md runs as it stands, and its recordings are imported."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from mmkd.data import read_info, read_split
from mmkd.data.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "adding-data.md"


def _block(heading: str) -> str:
    """The Python below a heading."""
    section = PAGE.read_text().split(f" {heading}\n", 1)[1]
    match = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert match
    return match[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _table(names: list[str]) -> None:
    lines = [f"{name},{'no' if n % 2 else 'yes'}" for n, name in enumerate(names)]
    Path("recordings/labels.csv").write_text("\n".join(["id,label", *lines]) + "\n")


NAMES = [f"r{n}" for n in range(10)]


def test_arrays_in_python(folder: Path) -> None:
    exec(_block("Arrays in Python"), {})
    assert read_info("mine.h5").sizes == {"train": 60, "valid": 20, "test": 20}


def test_pytorch(folder: Path) -> None:
    data = {name: torch.rand(3 + n, 2) for n, name in enumerate(NAMES)}
    torch.save(data, "features.pt")
    exec(_block("PyTorch"), {})
    _table(NAMES)
    assert main(["import", "arrays", "recordings", "x.h5"]) == 0
    train = read_split("x.h5", "train", standardise=False)
    row = train.ids.index(name := train.ids[0])
    length = train.lengths["audio"][row]
    np.testing.assert_array_equal(train.arrays["audio"][row, -length:], data[name].numpy())


def test_matlab(folder: Path) -> None:
    Path("matlab").mkdir()
    for n, name in enumerate(NAMES):
        scipy.io.savemat(f"matlab/{name}.mat", {"data": np.ones((3 + n, 2))})
    exec(_block("MATLAB"), {})
    _table(NAMES)
    assert main(["import", "arrays", "recordings", "x.h5"]) == 0
    assert read_info("x.h5").steps == {"accelerometer": 12}


def test_cmu_multimodalsdk(folder: Path) -> None:
    rng = np.random.default_rng(0)
    starts = np.arange(40.0)
    intervals = np.stack([starts, starts + 1], axis=1)
    with h5py.File("CMU_MOSEI_Labels.csd", "w") as labels, h5py.File("CMU_MOSEI_COVAREP.csd", "w") as audio:
        for video in ("a", "b", "c", "d", "e"):
            audio[f"COVAREP/data/{video}/features"] = rng.normal(size=(40, 3))
            audio[f"COVAREP/data/{video}/intervals"] = intervals
            labels[f"All Labels/data/{video}/features"] = rng.uniform(-3, 3, (2, 7))
            labels[f"All Labels/data/{video}/intervals"] = np.array([[0.0, 10.0], [10.0, 25.0]])
    exec(_block("CMU-MultimodalSDK"), {})
    assert main(["import", "arrays", "recordings", "x.h5", "--scores=-3,3,7"]) == 0
    info = read_info("x.h5")
    assert (info.steps, info.score_range) == ({"audio": 15}, (-3.0, 3.0))
    assert sum(info.sizes.values()) == 10
    assert sum(len(groups) for groups in info.group_counts.values()) == 5
