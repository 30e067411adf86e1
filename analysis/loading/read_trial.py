"""Read one trial's directory: all of it, or the reason why not. Nothing but its own files decides the outcome."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkd.attempts import Attempt, read_attempts
from mmkd.config import SEEDS_PER_REPLICATE, StudentConfig, TeacherConfig, from_json, identity
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.metrics_log import read_metrics
from mmkd.records import as_written
from mmkd.result_file import Result, ResultError, read_result
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, trial_state

_PATHS = TrialDir(Path())
FILES = tuple(p.name for p in (_PATHS.config, _PATHS.attempt, _PATHS.metrics, _PATHS.result, _PATHS.superseded))
ATTEMPTS = _PATHS.attempts.name


@dataclass(frozen=True)
class Reading:
    """The content of a directory (relative to the root) as lines of the frames; or why it is rejected."""

    directory: str
    trial: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    attempts: Sequence[Mapping[str, Any]] = ()
    reason: str = ""


def read_trial(root: Path, directory: str) -> Reading:
    """Read a trial, its epochs and its attempts."""
    trial = TrialDir(root / directory)
    try:
        result = read_result(trial.result, predictions=False) if trial.result.exists() else None
        config = _config(trial, result)
        attempts = read_attempts(trial)
        state = trial_state(trial, attempts)
        status = result.status.value if result else state.value
        line = {"directory": directory, "status": status, **_decided(config), **_story(state, attempts)}
        series = result.curves if result else _columns(read_metrics(trial))
        curves = {name: np.array(values, np.float64) for name, values in series.items()}
        lines = [{"directory": directory, **_attempt_line(attempt)} for attempt in attempts]
        return Reading(directory, line | _outcome(result), curves, lines)
    except (UserError, ResultError, OSError) as error:
        reason = str(error)
    except (AttributeError, TypeError, ValueError) as error:
        # Valid JSON of an unexpected shape: whatever it is, one trial must not stop the reading of all others.
        reason = f"not as a trial's files are ({type(error).__name__}: {error})"
    return Reading(directory, reason=reason.replace(f"{root}/", ""))


def signature(directory: str) -> str:
    """Name, size, mtime_ns and inode of each file that `read_trial` reads: equal as long as none has changed."""
    marks = [_mark(directory, name) for name in FILES]
    try:
        attempts = sorted(name for name in os.listdir(f"{directory}/{ATTEMPTS}") if name.endswith(".json"))
    except OSError:
        attempts = []
    return " ".join(marks + [_mark(f"{directory}/{ATTEMPTS}", name) for name in attempts])


def _mark(directory: str, name: str) -> str:
    try:
        found = os.stat(f"{directory}/{name}")  # one pathlib.Path per file would take longer than the call itself
    except OSError as error:
        return f"{name}:{error.errno}"
    return f"{name}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def _config(trial: TrialDir, result: Result | None) -> TeacherConfig | StudentConfig | None:
    """The trial's configuration; None where the directory has none yet."""
    if result is None and not trial.config.exists():
        return None
    value = result.config if result else read_json(trial.config)
    if value is None:
        raise UserError(f"{trial.config}: not a whole JSON value")
    return from_json(value, trial.config)


def _decided(config: TeacherConfig | StudentConfig | None) -> dict[str, Any]:
    """The columns that the configuration decides: data, split, seed, hyperparameters, teacher."""
    if config is None:
        return {}
    line: dict[str, Any] = {
        "seed": config.seed,
        "replicate": config.seed // SEEDS_PER_REPLICATE,
        "split": config.split and config.split.digest,
        "learning_rate": config.training.learning_rate,
        "fingerprint": config.data.fingerprint,
    }
    if isinstance(config, StudentConfig):
        line |= config.distillation.model_dump(include={"alpha", "beta", "temperature"})
    teacher = config if isinstance(config, TeacherConfig) else config.teacher
    if teacher is not None:
        line["teacher"] = Root(Path()).teacher(identity(teacher)).path.as_posix()
        line["teacher_family"] = identity(teacher.model_copy(update={"seed": 0, "split": None}))[:16]
        line["branch"] = teacher.branch
    return line


def _story(state: State, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The columns that the attempts decide; those of a result replace some of them (`_outcome`)."""
    last = attempts[-1] if attempts else None
    return {
        "failure": last.end if last and state in (State.FAILED, State.RETRY_DUE) else None,
        "message": last.message if last else "",
        "attempts": len(attempts),
        "seconds": _total([attempt.ran.seconds for attempt in attempts]),
        "gpu_seconds": _total([attempt.submitted.gpu_seconds for attempt in attempts]),
        "commit": _commit(last),
    }


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def _commit(attempt: Attempt | None) -> str | None:
    """The commit that an attempt ran, and a mark of what differed from it."""
    git = {} if attempt is None else attempt.ran.git
    if "commit" not in git:
        return None
    return git["commit"][:12] + (f"+{git['diff']}" if git.get("diff") else "")


def _outcome(result: Result | None) -> dict[str, Any]:
    """The columns of a result: scalars, and metrics as `<split>_<metric>`."""
    if result is None:
        return {}
    scalars = {name: getattr(result, name) for name in ("best_epoch", "epochs", "seconds", "parameters", "device")}
    metrics = {f"{split}_{name}": x for split, values in result.metrics.items() for name, x in values.items()}
    return {"message": result.reason, "weights": result.weights_sha256 or None, **scalars, **metrics}


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The epochs' lines as one series per metric; the clock's are left to the attempts."""
    names = dict.fromkeys(name for line in lines for name in line if name not in ("epoch", "seconds", "time"))
    return {name: [line.get(name, float("nan")) for line in lines] for name in names}


def _attempt_line(attempt: Attempt) -> dict[str, Any]:
    known = {"attempt": attempt.number, "end": attempt.end, "message": attempt.message}
    return {**as_written(attempt.ran), **known, "submitted": as_written(attempt.submitted)}
