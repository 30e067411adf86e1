"""Builds small roots through the same writers that jobs and controllers use."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import row_record, winner_record

from mmkd.attempts import record_run
from mmkd.config import (
    SEEDS_PER_REPLICATE,
    DataSource,
    Distillation,
    DrawnSplit,
    Network,
    Run,
    StudentConfig,
    TeacherConfig,
    Training,
    identity,
    to_json,
)
from mmkd.files import write_json
from mmkd.metrics import classification_metrics
from mmkd.result_file import Predictions, Result, Status, read_result, write_result
from mmkd.rundir import Root, RowDir, TrialDir

SAMPLES = 1000
EPOCHS = 2
COMMIT = "a" * 40
"""What every attempt ran, but where a test says otherwise."""
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.9",
    "code": "c" * 12,
    "device": "cpu",
    "versions": {"torch": "2.6.0", "numpy": "2.1.0"},
}
"""What every attempt recorded of its process."""


def teacher_config(seed: int, branch: str | None = None, fingerprint: str = "f" * 64) -> TeacherConfig:
    return TeacherConfig(
        data=DataSource(path="/data/d.h5", fingerprint=fingerprint),
        network=Network(),
        training=Training(epochs=EPOCHS),
        seed=seed,
        evaluate_test=seed % SEEDS_PER_REPLICATE > 0,
        branch=branch,
    )


def student_config(
    seed: int, teacher: TeacherConfig | None, fingerprint: str = "f" * 64, split: str = "", **training: Any
) -> StudentConfig:
    drawn = DrawnSplit(scheme="group-folds", replicate=seed // SEEDS_PER_REPLICATE, digest=split) if split else None
    return StudentConfig(
        data=DataSource(path="/data/d.h5", fingerprint=fingerprint),
        split=drawn,
        network=Network(),
        training=Training(epochs=EPOCHS, **training),
        seed=seed,
        evaluate_test=seed % SEEDS_PER_REPLICATE > 0,
        primary="video",
        pairing="others",
        distillation=Distillation(method="crd", alpha=0.5, temperature=2.0),
        teacher=teacher,
    )


def finish(
    trial: TrialDir,
    config: Run,
    accuracy: float,
    *,
    status: Status = Status.COMPLETE,
    seconds: float = 10.0,
    parameters: int = 675_204,
    commit: str = COMMIT,
    outputs: Predictions | None = None,
) -> None:
    """A finished trial, with predictions of that accuracy, or these."""
    row = trial.path.parents[1].name
    outputs = outputs or predicted(accuracy, config.seed, row if config.evaluate_test else "")
    metrics = classification_metrics(outputs.logits, outputs.labels, 0)
    splits = ("valid", "test") if config.evaluate_test else ("valid",)
    complete = status is Status.COMPLETE
    trial.path.mkdir(parents=True, exist_ok=True)
    write_json(trial.config, to_json(config))
    weights = f"{identity(config)} {row}".encode()
    trial.weights.write_bytes(weights)
    result = Result(
        status=status,
        config=to_json(config),
        reason="" if complete else "epoch 1: the loss is nan",
        best_epoch=1,
        epochs=EPOCHS,
        seconds=seconds,
        parameters=parameters,
        device="cpu",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        metrics=dict.fromkeys(splits, metrics) if complete else {},
        curves={"valid_loss": [1.0, 0.5], "valid_accuracy": [0.1, accuracy]},
        predictions=dict.fromkeys(splits, outputs) if complete else {},
    )
    write_result(trial, result)
    facts = {"git": {"commit": commit, "diff": ""}, "end": "complete", "seconds": seconds + 1}
    record_run(trial, 1, attempt=1, **facts, **ENVIRONMENT)


def predicted(accuracy: float, seed: int, row: str = "") -> Predictions:
    """Outputs for three classes of 380, 320 and 300 samples; which ones are wrong depends on the seed.

    The row decides how sure they are, so that no two rows have the same outputs.
    """
    labels = np.repeat([0, 1, 2], [380, 320, 300])
    wrong = np.random.default_rng(seed).permutation(SAMPLES)[round(accuracy * SAMPLES) :]
    shown = labels.copy()
    shown[wrong] = (labels[wrong] + 1) % 3
    sureness = np.float32(4 + zlib.crc32(row.encode()) / 2**36)
    return Predictions(sureness * np.eye(3, dtype=np.float32)[shown], labels, [str(i) for i in range(SAMPLES)])


def fail(trial: TrialDir, config: Run, end: str, seconds: float = 7.0, attempts: int = 1) -> None:
    """A trial whose attempts all ended so, without a result."""
    trial.path.mkdir(parents=True, exist_ok=True)
    write_json(trial.config, to_json(config))
    trial.attempt.write_text(f"{attempts}")
    for number in range(1, attempts + 1):
        facts = {"host": "node1", "started": 1.0, "message": "it broke", "seconds": seconds}
        record_run(trial, number, attempt=number, end=end, **facts)


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
        **identity: Any,
    ) -> RowDir:
        """A row with nothing in it but its row.json, also named in the study."""
        row = self.root.row(name, "0123456789abcdef")
        row.path.mkdir(parents=True)
        write_json(row.row, row_record({"source": source, "fingerprint": fingerprint}, "01" * 32, **identity))
        entry = {"name": name, "label": label or name, "group": group, "directory": row.path.name}
        self.rows.append({**entry, "trials": trials, "seeds": list(seeds), "teachers": []})
        return row

    def tune(
        self, row: RowDir, accuracies: Sequence[float], fingerprint: str = "f" * 64, split: str = "", first: int = 0
    ) -> None:
        for number, accuracy in enumerate(accuracies):
            config = student_config(first, None, fingerprint, split, learning_rate=10.0 ** -(number + 2))
            finish(row.trial(number), config, accuracy)

    def choose(self, row: RowDir, confirm: dict[int, TrialDir], trials: int = 2, winner_trial: int = 0) -> None:
        params = {"learning_rate": 10.0 ** -(winner_trial + 2)}
        result = row.trial(winner_trial).result
        value = read_result(result).metrics["valid"]["loss"] if result.exists() else 0.5
        names = {seed: trial.path.name for seed, trial in confirm.items()}
        write_json(row.winner, winner_record(names, trials, trial=winner_trial, params=params, value=value))

    def row(
        self, name: str, accuracies: Sequence[float], teachers: Sequence[TeacherConfig | None] = (), **kwargs: Any
    ) -> RowDir:
        """A finished row: tuned, with final runs on seeds 1, 2, ... of these test accuracies."""
        trials, fingerprint = kwargs.get("trials", 2), kwargs.get("fingerprint", "f" * 64)
        seeds = range(1, len(accuracies) + 1)
        row = self.begin_row(name, **{"seeds": list(seeds), **kwargs})
        self.tune(row, [0.5] * trials, fingerprint)
        final_runs = {seed: row.final_run(seed, "abcdef0123") for seed in seeds}
        for (_, trial), accuracy, teacher, seed in zip(
            final_runs.items(), accuracies, teachers or [None] * len(accuracies), seeds, strict=True
        ):
            finish(trial, student_config(seed, teacher, fingerprint, learning_rate=1e-2), accuracy)
        self.choose(row, final_runs, trials)
        return row

    def replicate(self, name: str, number: int, outputs: Sequence[Predictions], *, split: str = "") -> RowDir:
        """A finished replicate of a row, with final runs on seeds 1, 2, ... of these outputs."""
        row = self.root.row(name, f"{number:08x}" * 2)
        row.path.mkdir(parents=True)
        drawn = {"split": split, "replicate": number} if split else {"replicate": number}
        write_json(row.row, row_record({}, f"{number:02x}" * 32, **drawn))
        facts = {"name": name, "label": name, "group": None, "replicate": number, "directory": row.path.name}
        self.rows.append({**facts, "trials": 2, "seeds": list(range(1, len(outputs) + 1)), "teachers": []})
        self.tune(row, [0.5] * 2, split=split, first=SEEDS_PER_REPLICATE * number)
        final_runs = {seed: row.final_run(seed, "abcdef0123") for seed in range(1, len(outputs) + 1)}
        for (seed, trial), found in zip(final_runs.items(), outputs, strict=True):
            finish(
                trial,
                student_config(SEEDS_PER_REPLICATE * number + seed, None, split=split, learning_rate=1e-2),
                0.5,
                outputs=found,
            )
        self.choose(row, final_runs)
        return row

    def row_of(self, method: str) -> RowDir:
        """The row whose directory's name begins with `method`."""
        return next(row for row in self.root.rows() if row.path.name.startswith(f"{method}-"))

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
    lab.rows = [dict(row) for row in finished.rows]
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
