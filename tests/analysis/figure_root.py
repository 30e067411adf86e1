"""A root with a study whose curves, trials and predictions are known, for figures; nothing in it was trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recorded import row_record, winner_record

from mmkd.config import DataSource, Distillation, Network, StudentConfig, Training, to_json
from mmkd.files import write_json
from mmkd.metrics import classification_metrics
from mmkd.result_file import Predictions, Result, Status, write_result
from mmkd.rundir import Root, TrialDir

CLASSES = ("walk", "run $fast$", "100% _still_")
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "beta": {"low": 0.0, "high": 1.0, "log": False},
}
HOSTILE = "$\\alpha$_{1} 100% & ^~#"
"""A label that means something to matplotlib, or to LaTeX."""


def config(seed: int, learning_rate: float = 1e-3, beta: float = 0.5) -> StudentConfig:
    return StudentConfig(
        data=DataSource(path="/d.h5", fingerprint="f" * 64),
        network=Network(),
        training=Training(epochs=4, learning_rate=learning_rate),
        seed=seed,
        evaluate_test=seed > 0,
        primary="video",
        pairing="others",
        distillation=Distillation(method="crd", level="attention_maps", beta=beta),
    )


def tuned(trial: TrialDir, learning_rate: float, beta: float, loss: float | None, seconds: float) -> None:
    """A tuning trial that ended with a validation loss, or diverged."""
    result = Result(
        status=Status.DIVERGED if loss is None else Status.COMPLETE,
        config=to_json(config(0, learning_rate, beta)),
        epochs=1,
        seconds=seconds,
        device="cpu",
        metrics={} if loss is None else {"valid": {"loss": loss, "accuracy": 0.5}},
        curves={"valid_loss": [2.0]},
    )
    trial.path.mkdir(parents=True)
    write_result(trial, result)


def final_run(trial: TrialDir, seed: int, losses: list[float], predicted: NDArray[np.int64] | None) -> None:
    """A final run with that curve; None: it diverged."""
    done = predicted is not None
    logits = np.eye(3, dtype=np.float32)[LABELS if predicted is None else predicted]
    outputs = {"test": Predictions(logits, LABELS, [f"s{k}" for k in range(len(LABELS))])}
    result = Result(
        status=Status.COMPLETE if done else Status.DIVERGED,
        config=to_json(config(seed)),
        best_epoch=int(np.argmin(losses)) + 1,
        epochs=len(losses),
        seconds=5.0,
        device="cpu",
        metrics={"test": classification_metrics(logits, LABELS, 2)} if done else {},
        curves={"valid_loss": losses, "valid_accuracy": [1 - loss / 4 for loss in losses]},
        predictions=outputs if done else {},
    )
    trial.path.mkdir(parents=True)
    write_result(trial, result)


@dataclass
class FigureRoot:
    """A root to which rows are added; `write` writes the study."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, name: str, label: str, group: str | None = None, seeds: int = 3, **identity: Any) -> Path:
        """A row with no trial; its directory."""
        row = Root(self.path).row(name, "0" * 8)
        row.path.mkdir(parents=True)
        data = {"source": "synthetic", "classes": list(CLASSES)}
        write_json(row.row, row_record(data, **{"level": "attention_maps", "space": SPACE, **identity}))
        entry = {"name": name, "label": label, "group": group, "directory": row.path.name}
        self.rows.append({**entry, "trials": 10, "seeds": list(range(1, seeds + 1)), "teachers": []})
        return row.path

    def row(
        self, name: str, label: str, rng: np.random.Generator, group: str | None = None, *, diverged: int | None = None
    ) -> Path:
        """A row with ten tuning trials, of which number 3 diverged, and three final runs of which one may have."""
        path = self.begin(name, label, group)
        for number in range(10):
            rate, beta = float(10 ** rng.uniform(-4, -2)), float(rng.uniform())
            loss = None if number == 3 else float(1 + (np.log10(rate) + 3) ** 2 + 0.1 * beta)
            tuned(TrialDir(path / "trials" / str(number)), rate, beta, loss, 36.0 * (number + 1))
        final_runs = {}
        for seed in (1, 2, 3):
            losses = [float(x) for x in 2 / np.arange(1, 5) + 0.1 * rng.normal(size=4)]
            predicted = np.where(rng.random(len(LABELS)) < 0.7, LABELS, (LABELS + 1) % 3)
            trial = TrialDir(path / "confirm" / f"{seed}-abcdef01")
            failed = seed == diverged
            final_run(trial, seed, losses[: 2 if failed else 4], None if failed else predicted)
            final_runs[seed] = trial.path.name
        write_json(path / "winner.json", winner_record(final_runs, 10))
        return path

    def write(self, control: str | None = "none", name: str = "demo") -> str:
        """The study of all rows; its name."""
        path = Root(self.path).study(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"name": name, "title": "A study", "control": control, "rows": self.rows})
        return name


def build(path: Path) -> FigureRoot:
    """Study `demo`: the control `none`, `crd` with a hostile label and a seed that diverged, `late` with nothing."""
    root, rng = FigureRoot(path), np.random.default_rng(0)
    root.row("none", "Student without KD", rng)
    root.row("crd", HOSTILE, rng, "Group_1 $x$", diverged=2)
    root.begin("late", "Not begun", "Group_1 $x$")
    root.write()
    return root
