"""Builds small roots through the same writers that jobs and controllers use."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.config import (
    DataSource,
    Distillation,
    Network,
    Run,
    StudentConfig,
    TeacherConfig,
    Training,
    identity,
    to_json,
)
from mmkd.files import write_json
from mmkd.results import Predictions, Result, Status, record_run, write_result
from mmkd.rundir import Root, RowDir, TrialDir

SAMPLES = 1000
EPOCHS = 2


def teacher_config(seed: int, branch: str | None = None, fingerprint: str = "f" * 64) -> TeacherConfig:
    return TeacherConfig(
        data=DataSource(path="/data/d.h5", fingerprint=fingerprint),
        network=Network(),
        training=Training(epochs=EPOCHS),
        seed=seed,
        evaluate_test=seed > 0,
        branch=branch,
    )


def student_config(seed: int, teacher: TeacherConfig | None, **training: Any) -> StudentConfig:
    return StudentConfig(
        data=DataSource(path="/data/d.h5", fingerprint="f" * 64),
        network=Network(),
        training=Training(epochs=EPOCHS, **training),
        seed=seed,
        evaluate_test=seed > 0,
        primary="video",
        pairing="others",
        distillation=Distillation(method="crd", alpha=0.5, temperature=2.0),
        teacher=teacher,
    )


def finish(
    place: TrialDir,
    config: Run,
    accuracy: float,
    *,
    status: Status = Status.COMPLETE,
    seconds: float = 10.0,
    parameters: int = 675_204,
) -> None:
    """A finished trial; its other metrics follow from the accuracy."""
    metrics = {
        "loss": 1 - accuracy,
        "accuracy": accuracy,
        "weighted_f1": accuracy - 0.01,
        "macro_f1": accuracy - 0.02,
        "majority_share": 0.4,
        "majority_accuracy": 0.38,
    }
    splits = ("valid", "test") if config.evaluate_test else ("valid",)
    outputs = Predictions(
        np.zeros((SAMPLES, 3), np.float32), np.zeros(SAMPLES, np.int64), [str(i) for i in range(SAMPLES)]
    )
    complete = status is Status.COMPLETE
    place.path.mkdir(parents=True, exist_ok=True)
    write_json(place.config, to_json(config))
    result = Result(
        status=status,
        config=to_json(config),
        reason="" if complete else "epoch 1: the loss is nan",
        best_epoch=2,
        epochs=EPOCHS,
        seconds=seconds,
        parameters=parameters,
        device="cpu",
        metrics=dict.fromkeys(splits, metrics) if complete else {},
        curves={"valid_loss": [1.0, 0.5], "valid_accuracy": [0.1, accuracy]},
        predictions=dict.fromkeys(splits, outputs) if complete else {},
    )
    write_result(place, result)


def fail(place: TrialDir, config: Run, end: str, seconds: float = 7.0) -> None:
    """A trial whose one attempt ended without a result."""
    place.path.mkdir(parents=True, exist_ok=True)
    write_json(place.config, to_json(config))
    place.attempt.write_text("1")
    record_run(place, 1, attempt=1, host="node1", started=1.0, end=end, message="it broke", seconds=seconds)


class Lab:
    """A root to which rows, teachers and studies are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Root(path)
        self.rows: list[dict[str, Any]] = []

    def teacher(self, seed: int, accuracy: float, branch: str | None = None) -> TeacherConfig:
        config = teacher_config(seed, branch)
        finish(self.root.teacher(identity(config)), config, accuracy, seconds=100.0, parameters=1_802_345)
        return config

    def begin_row(
        self,
        name: str,
        *,
        group: str | None = None,
        label: str = "",
        trials: int = 2,
        seeds: Sequence[int] = (1, 2, 3),
        source: str = "CMU-MOSEI",
        fingerprint: str = "f" * 64,
    ) -> RowDir:
        """A row with nothing in it but its row.json, also named in the study."""
        row = self.root.row(name, "0123456789abcdef")
        row.path.mkdir(parents=True)
        what = {"algorithm": 1, "primary": "video", "pairing": "others", "method": "crd", "level": None, "settings": {}}
        data = {"path": "/d.h5", "source": source, "fingerprint": fingerprint, "modalities": [], "classes": []}
        record = {"digest": "01" * 32, "identity": {**what, "selection": "loss"}, "data": data}
        write_json(row.row, record)
        entry = {"name": name, "label": label or name, "group": group, "directory": row.path.name}
        self.rows.append({**entry, "trials": trials, "seeds": list(seeds)})
        return row

    def tune(self, row: RowDir, accuracies: Sequence[float]) -> None:
        for number, accuracy in enumerate(accuracies):
            finish(row.trial(number), student_config(0, None, learning_rate=10.0 ** -(number + 2)), accuracy)

    def choose(self, row: RowDir, confirm: dict[int, TrialDir], trials: int = 2) -> None:
        winner = {"trial": 1, "value": 0.5, "params": {"learning_rate": 1e-3}, "trials": trials, "selection": "loss"}
        names = {str(seed): place.path.name for seed, place in confirm.items()}
        write_json(row.winner, {**winner, "seeds": list(confirm), "confirm": names})

    def row(
        self, name: str, accuracies: Sequence[float], teachers: Sequence[TeacherConfig | None] = (), **kwargs: Any
    ) -> RowDir:
        """A finished row: tuned, and confirmed on seeds 1, 2, ... with these test accuracies."""
        trials = kwargs.get("trials", 2)
        seeds = range(1, len(accuracies) + 1)
        row = self.begin_row(name, **{"seeds": list(seeds), **kwargs})
        self.tune(row, [0.5] * trials)
        places = {seed: row.confirm(seed, "abcdef0123") for seed in seeds}
        for (_, place), accuracy, teacher, seed in zip(
            places.items(), accuracies, teachers or [None] * len(accuracies), seeds, strict=True
        ):
            finish(place, student_config(seed, teacher), accuracy)
        self.choose(row, places, trials)
        return row

    def study(self, name: str = "demo", control: str | None = None) -> str:
        path = self.root.study(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"name": name, "title": f"Study {name}", "control": control, "rows": self.rows})
        return name


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    root = tmp_path / "runs"
    root.mkdir()
    return Lab(root)


@pytest.fixture
def ablation(lab: Lab, finished: Lab) -> Lab:
    """A control at 70, 71, 72 %, a teacher at 80 % and a row at 74, 75, 76 % that learns from it."""
    shutil.copytree(finished.path, lab.path, dirs_exist_ok=True)
    lab.rows = list(finished.rows)
    return lab


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """What `ablation` copies."""
    lab = Lab(tmp_path_factory.mktemp("finished"))
    teachers = [lab.teacher(seed, 0.80) for seed in (1, 2, 3)]
    lab.row("none", [0.70, 0.71, 0.72], label="Student without KD")
    lab.row("crd", [0.74, 0.75, 0.76], teachers, label="CRD on attention maps")
    lab.study(control="none")
    return lab
