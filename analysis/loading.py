"""All runs under a root as tidy data frames; nothing disappears: what cannot be used is in `rejected`, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records import RowRecord, Winner, read_record
from mmkd.config import StudentConfig, TeacherConfig, from_json, identity
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.results import (
    Attempt,
    Predictions,
    Result,
    ResultError,
    State,
    read_attempts,
    read_metrics,
    read_result,
    trial_state,
)
from mmkd.rundir import Root, RowDir, TrialDir

SCORES = ("accuracy", "weighted_f1", "macro_f1", "majority_share", "majority_accuracy")

ROWS = {
    **dict.fromkeys(("row", "name", "digest", "method", "level", "pairing", "primary"), "string"),
    **dict.fromkeys(("source", "fingerprint", "selection"), "string"),
    **dict.fromkeys(("algorithm", "asked", "winner_trial"), "Int64"),
    "winner_value": "float64",
}
TRIALS = {
    **dict.fromkeys(("directory", "kind", "row"), "string"),
    **dict.fromkeys(("number", "seed"), "Int64"),
    **dict.fromkeys(("status", "failure", "message"), "string"),
    "superseded": "bool",
    **dict.fromkeys(("learning_rate", "alpha", "beta", "temperature"), "float64"),
    **dict.fromkeys(("best_epoch", "epochs", "parameters", "attempts"), "Int64"),
    "seconds": "float64",
    **dict.fromkeys(("device", "teacher", "teacher_family", "branch"), "string"),
    **{f"{split}_{score}": "float64" for split in ("valid", "test") for score in SCORES},
}
CURVES = {"directory": "string", "epoch": "int64"}
ATTEMPTS = {
    "directory": "string",
    "attempt": "int64",
    **dict.fromkeys(("end", "message", "host"), "string"),
    **dict.fromkeys(("started", "ended", "seconds"), "float64"),
}
REJECTED = {"path": "string", "reason": "string"}


@dataclass(frozen=True)
class Runs:
    """What lies under a root. A trial is known by its `directory`, relative to the root; a row by its directory's name.

    Attributes:
        root: where all of it lies.
        rows: one line a row; `asked` (trials) and `winner_*` are missing while it is tuned.
        trials: one line a trial directory; `kind` is tuning, confirm or teacher. `status` is complete, pruned or
            diverged, or the state of what is not finished; `failure` is the class of a failed one. `superseded` is a
            confirming run that the row's winner.json does not name. `teacher` is the teacher's directory (a teacher's
            own), `teacher_family` what its seeds share. A metric's column is called `<split>_<metric>`. `seconds` are
            the result's, else those that its attempts recorded.
        curves: one line a trial and epoch (from 1), also of trials that are not finished.
        attempts: one line an attempt as the job told it; the controller's facts are called `submitted.<key>`.
        rejected: what is in none of these, and why.
    """

    root: Path
    rows: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    attempts: pd.DataFrame
    rejected: pd.DataFrame


def load(root: Path | str) -> Runs:
    """Read everything under `root` but the predictions.

    Raises:
        UserError: there is no such folder, or nothing of a launch in it.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; --root is where the launched studies lie")
    if not any((path / part).is_dir() for part in ("rows", "teachers", "studies")):
        raise UserError(f"{path}: no rows, teachers or studies in it; --root is where the launched studies lie")
    reader = _Reader(path)
    for row in Root(path).rows():
        reader.read_row(row)
    for teacher in Root(path).teachers():
        reader.read_trial(teacher, "teacher")
    return Runs(
        path,
        _frame(reader.rows, ROWS),
        _frame(reader.trials, TRIALS),
        _frame(reader.curves, CURVES),
        _frame(reader.attempts, ATTEMPTS),
        _frame(reader.rejected, REJECTED),
    )


def predictions(directory: Path) -> dict[str, Predictions]:
    """The stored predictions of a finished trial, by split.

    Raises:
        FileNotFoundError, ResultError: see `mmkd.results.read_result`.
    """
    return dict(read_result(TrialDir(directory).result).predictions)


class _Reader:
    """Collects the lines of the frames."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, Any]] = []
        self.trials: list[dict[str, Any]] = []
        self.curves: list[dict[str, Any]] = []
        self.attempts: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []

    def read_row(self, place: RowDir) -> None:
        """A row, and all trials in it whether or not the row itself can be read."""
        winner = None
        try:
            if place.winner.exists():
                winner = read_record(place.winner, Winner)
        except UserError as error:
            self._reject(place.winner, error)
        try:
            self.rows.append(_row_line(place, read_record(place.row, RowRecord), winner))
        except UserError as error:
            self._reject(place.path, error)
        trials, confirms = place.trials(), place.confirms()
        for trial in trials:
            self.read_trial(trial, "tuning", row=place.path.name, number=int(trial.path.name))
        counting = set(winner.confirm.values()) if winner else set()
        for trial in confirms:
            facts = {"seed": int(trial.path.name.split("-")[0]), "superseded": trial.path.name not in counting}
            self.read_trial(trial, "confirm", row=place.path.name, **facts)
        known = {trial.path for trial in trials + confirms}
        for path in sorted([*place.path.glob("trials/*"), *place.path.glob("confirm/*")]):
            if path.is_dir() and path not in known:
                self._reject(path, "not the name of a trial's directory")

    def read_trial(self, place: TrialDir, kind: str, **facts: Any) -> None:
        """A trial, its epochs and its attempts: all of it, or its rejection."""
        try:
            result = read_result(place.result, predictions=False) if place.result.exists() else None
            config = _config(place, result)
            attempts = read_attempts(place)
            epochs = _epochs(place, result)
            status = result.status.value if result else trial_state(place).value
        except (UserError, ResultError, OSError) as error:
            return self._reject(place.path, error)
        name = self._name(place.path)
        line = {"directory": name, "kind": kind, "status": status, "superseded": False, **_decided(config), **facts}
        self.trials.append(line | _story(status, attempts) | _outcome(result))
        self.curves += [{"directory": name, **epoch} for epoch in epochs]
        self.attempts += [{"directory": name, **_attempt_line(attempt)} for attempt in attempts]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _reject(self, path: Path, reason: object) -> None:
        self.rejected.append({"path": self._name(path), "reason": str(reason).replace(f"{self.root}/", "")})


def _row_line(place: RowDir, row: RowRecord, winner: Winner | None) -> dict[str, Any]:
    won = {"asked": winner.trials, "winner_trial": winner.trial, "winner_value": winner.value} if winner else {}
    name = {"row": place.path.name, "name": place.path.name.rpartition("-")[0], "digest": row.digest}
    return {**name, **row.identity.model_dump(), **row.data.model_dump(), **won}


def _config(place: TrialDir, result: Result | None) -> TeacherConfig | StudentConfig | None:
    """The trial's configuration; None where the directory has none yet."""
    if result is None and not place.config.exists():
        return None
    value = result.config if result else read_json(place.config)
    if value is None:
        raise UserError(f"{place.config}: not a whole JSON value")
    return from_json(value, place.config)


def _story(status: str, attempts: list[Attempt]) -> dict[str, Any]:
    """What the attempts say of a trial that may have no result; `_outcome` goes over it."""
    last = attempts[-1] if attempts else None
    seconds = [float(attempt.ran["seconds"]) for attempt in attempts if "seconds" in attempt.ran]
    return {
        "failure": last.end if last and status == State.FAILED else None,
        "message": last.message if last else "",
        "attempts": len(attempts),
        "seconds": sum(seconds) if seconds else None,
    }


def _decided(config: TeacherConfig | StudentConfig | None) -> dict[str, Any]:
    """What the configuration decides: seed, hyper-parameters, teacher."""
    if config is None:
        return {}
    line: dict[str, Any] = {"seed": config.seed, "learning_rate": config.training.learning_rate}
    if isinstance(config, StudentConfig):
        line |= config.distillation.model_dump(include={"alpha", "beta", "temperature"})
    teacher = config if isinstance(config, TeacherConfig) else config.teacher
    if teacher is not None:
        line["teacher"] = Root(Path()).teacher(identity(teacher)).path.as_posix()
        line["teacher_family"] = identity(teacher.model_copy(update={"seed": 0}))[:16]
        line["branch"] = teacher.branch
    return line


def _outcome(result: Result | None) -> dict[str, Any]:
    """What a finished trial leaves: scalars, and metrics as `<split>_<metric>`."""
    if result is None:
        return {}
    scalars = {name: getattr(result, name) for name in ("best_epoch", "epochs", "seconds", "parameters", "device")}
    metrics = {f"{split}_{name}": x for split, values in result.metrics.items() for name, x in values.items()}
    return {"message": result.reason, **scalars, **metrics}


def _epochs(place: TrialDir, result: Result | None) -> list[dict[str, Any]]:
    if result is None:
        return [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in read_metrics(place)]
    epochs = enumerate(zip_longest(*result.curves.values()), start=1)
    return [{"epoch": epoch, **dict(zip(result.curves, values, strict=True))} for epoch, values in epochs]


def _attempt_line(attempt: Attempt) -> dict[str, Any]:
    told = {"attempt": attempt.number, "end": attempt.end, "message": attempt.message}
    return {**attempt.ran, **told, "submitted": dict(attempt.submitted)}


def _frame(lines: list[dict[str, Any]], schema: Mapping[str, str]) -> pd.DataFrame:
    """A frame that has the schema's columns and types also where it is empty; other columns follow by name."""
    frame = pd.json_normalize(lines)
    others = sorted(set(frame.columns) - set(schema))
    return frame.reindex(columns=[*schema, *others]).astype(dict(schema))
