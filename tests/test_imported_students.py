"""Students of every importer's data predict and export what their trials stored."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from mmkd import export, predict
from mmkd.data import read_info
from mmkd.data.__main__ import main
from mmkd.metrics import softmax
from mmkd.result_file import read_result

PARTS = ("train", "valid", "test")


def _padded(rng: np.random.Generator, samples: int, steps: int, features: int, behind: bool) -> tuple[Any, Any]:
    """Sequences with a real frame of zeros in every third sample, and their lengths."""
    array = rng.normal(3, 1, (samples, steps, features))
    array[::3, steps // 2] = 0
    lengths = rng.integers(steps // 2 + 1, steps + 1, samples)
    outside = np.arange(steps) >= lengths[:, None]
    array[outside if behind else outside[:, ::-1]] = 0
    return array, lengths


def _pickle(folder: Path, labels: Callable[[np.random.Generator, int], Any], behind: bool = False) -> Path:
    rng = np.random.default_rng(0)
    data = {}
    for name in PARTS:
        part: dict[str, Any] = {"id": [f"{name}{n}[0]" for n in range(24)]}
        for key, shape in {"vision": (6, 1), "audio": (9, 3), "text": (5, 300)}.items():
            part[key], lengths = _padded(rng, 24, *shape, behind)
            if behind and key != "text":
                part[f"{key}_lengths"] = lengths
        part["regression_labels" if behind else "labels"] = labels(rng, 24)
        data[name] = part
    (folder / "x.pkl").write_bytes(pickle.dumps(data, protocol=2))
    return folder / "x.pkl"


def _scores(rng: np.random.Generator, samples: int) -> Any:
    return rng.choice([-3.0, -1.0, 0.0, 2.0], samples)


def _one_hot(rng: np.random.Generator, samples: int) -> Any:
    return np.eye(2)[rng.integers(0, 2, (samples, 4))]


def _uea(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        lines = ["@problemName X", "@data"]
        for n in range(30):
            case = rng.normal(n % 2, 1, (3, 4 + n % 3))
            case[:, 1 + n % 2] = 0
            lines.append(":".join(",".join(f"{v:.4g}" for v in row) for row in case) + f":{'ab'[n % 2]}")
        (folder / f"X_{part}.ts").write_text("\n".join(lines) + "\n")
    return folder


def _recordings(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["id,label"]
    for modality in ("video", "audio"):
        (folder / "mine" / modality).mkdir(parents=True)
    for n in range(40):
        for modality in ("video", "audio"):
            sequence = rng.normal(n % 2, 1, (4 + n % 5, 2))
            sequence[[0, 2]] = 0
            np.save(folder / "mine" / modality / f"s{n}.npy", sequence)
        lines.append(f"s{n},{'ab'[n % 2]}")
    (folder / "mine" / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "mine"


def _utd(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for subject in range(1, 9):
        for action in (1, 2):
            inertial = rng.normal(size=(9 + action, 6))
            inertial[3] = 0
            skeleton = rng.normal(size=(20, 3, 7))
            for kind, value in {"inertial": {"d_iner": inertial}, "skeleton": {"d_skel": skeleton}}.items():
                scipy.io.savemat(folder / f"a{action}_s{subject}_t1_{kind}.mat", value)
    return folder


IMPORTS: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "mult": (lambda f: _pickle(f, _scores), ["mult", "--dataset", "mosei"], "video"),
    "iemocap": (lambda f: _pickle(f, _one_hot), ["mult", "--dataset", "iemocap", "--emotion", "sad"], "audio"),
    "mmsa": (lambda f: _pickle(f, _scores, behind=True), ["mmsa", "--dataset", "mosei"], "video"),
    "multibench": (
        lambda f: _pickle(f, lambda rng, n: rng.integers(0, 2, n)),
        ["multibench", "--dataset", "humor"],
        "audio",
    ),
    "uea": (_uea, ["uea", "--modalities", "a=0-1,b=2"], "b"),
    "arrays": (_recordings, ["arrays"], "video"),
    "utd-mhad": (_utd, ["utd-mhad", "--native"], "accelerometer"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_predictions_and_exports_equal_the_stored_logits(lab: Any, tmp_path: Path, name: str) -> None:
    make, (importer, *options), primary = IMPORTS[name]
    (tmp_path / "source").mkdir()
    out = tmp_path / "x.h5"
    assert main(["import", importer, str(make(tmp_path / "source")), str(out), *options]) == 0
    data = {"path": str(out), "fingerprint": read_info(out).fingerprint}
    trial = lab.run(lab.student(primary=primary, data=data, evaluate_test=True, training={"epochs": 2}))
    stored = read_result(trial.result).predictions["test"]
    common = ["--trial", str(trial.path), "--out"]
    assert predict.main([*common, str(tmp_path / "p.csv"), "--data", str(out)]) == 0
    lines = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    found = np.array([[float(p) for p in line[3:]] for line in lines])
    np.testing.assert_allclose(found, softmax(stored.logits), atol=2e-6)
    assert export.main([*common, str(tmp_path / "s.pt2")]) == 0
    card = (tmp_path / "s.md").read_text()
    (agreement,) = [line for line in card.splitlines() if line.startswith("- Check: ")]
    assert float(agreement.rsplit(" ", 1)[1]) < 1e-5
