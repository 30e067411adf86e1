"""Read one trial's directory: all of it, or the reason why not. Nothing but its own files decides the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkd.attempts import Attempt, read_attempts
from mmkd.config import StudentConfig, TeacherConfig, from_json
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.finished import attempts_of, describe, facts_of
from mmkd.metrics_log import read_metrics
from mmkd.records import FinishedTrial, as_written
from mmkd.result_file import ResultError, read_result
from mmkd.rundir import TrialDir
from mmkd.trial_state import State, trial_state

LOST_RESULT = "lost result"
"""The failure of a trial whose last attempt had a result, which is gone."""


@dataclass(frozen=True)
class Reading:
    """The content of a directory (relative to the root) as a line of a frame, and its attempts; or why it is rejected.

    `line` is the one of a finished trial for its row's `finished.jsonl`, if it would stay true.
    """

    directory: str
    trial: Mapping[str, Any] = field(default_factory=dict)
    attempts: Sequence[Attempt] = ()
    reason: str = ""
    line: FinishedTrial | None = None


def read_trial(root: Path, directory: str) -> Reading:
    """Read a trial and its attempts."""
    trial = TrialDir(root / directory)
    try:
        if trial.result.exists():
            line, stays_true = describe(trial)
            return replace(read_line(directory, line), line=line if stays_true else None)
        config = _config(trial)
        attempts = read_attempts(trial)
        state = trial_state(trial, attempts)
        facts = {} if config is None else as_written(facts_of(config))
        return Reading(
            directory, {"directory": directory, "status": state.value, **facts, **_story(state, attempts)}, attempts
        )
    except (UserError, ResultError, OSError) as error:
        reason = str(error)
    except (AttributeError, TypeError, ValueError) as error:
        # Valid JSON of an unexpected shape: whatever it is, one trial must not stop the reading of all others.
        reason = f"not as a trial's files are ({type(error).__name__}: {error})"
    return Reading(directory, reason=reason.replace(f"{root}/", ""))


def read_line(directory: str, line: FinishedTrial) -> Reading:
    """A finished trial by its line in its row's `finished.jsonl`: what `read_trial` reads from its directory."""
    attempts = attempts_of(line)
    scalars = {name: getattr(line, name) for name in ("best_epoch", "epochs", "seconds", "parameters", "device")}
    metrics = {f"{split}_{name}": x for split, values in line.metrics.items() for name, x in values.items()}
    trial = {
        "directory": directory,
        "status": line.status,
        **as_written(line.facts),
        **_story(State.FINISHED, attempts),
        "message": line.reason,
        "weights": line.weights_sha256 or None,
        **scalars,
        **metrics,
    }
    return Reading(directory, trial, attempts)


def read_curves(directory: Path) -> dict[str, NDArray[np.float64]]:
    """A trial's series by epoch: those of its result, else of its metrics file.

    Raises:
        ResultError: its result cannot be read.
    """
    trial = TrialDir(directory)
    try:
        series: Mapping[str, Sequence[float]] = read_result(trial.result, predictions=False).curves
    except FileNotFoundError:
        series = _columns(read_metrics(trial))
    return {name: np.array(values, np.float64) for name, values in series.items()}


def _config(trial: TrialDir) -> TeacherConfig | StudentConfig | None:
    """The configuration of a trial without a result; None where the directory has none yet."""
    if not trial.config.exists():
        return None
    value = read_json(trial.config)
    if value is None:
        raise UserError(f"{trial.config}: not a whole JSON value")
    return from_json(value, trial.config)


def _story(state: State, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The columns that the attempts decide; those of a result replace some of them (`read_line`)."""
    last = attempts[-1] if attempts else None
    return {
        "failure": _failure(last) if last and state in (State.FAILED, State.RETRY_DUE) else None,
        "message": last.message if last else "",
        "attempts": len(attempts),
        "seconds": _total([attempt.ran.seconds for attempt in attempts]),
        "gpu_seconds": _total([attempt.submitted.gpu_seconds for attempt in attempts]),
        "commit": _commit(last),
    }


def _failure(last: Attempt) -> str:
    return last.end if last.end in set(Failure) else LOST_RESULT


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def _commit(attempt: Attempt | None) -> str | None:
    """The commit that an attempt ran, and a mark of what differed from it."""
    git = {} if attempt is None else attempt.ran.git
    if "commit" not in git:
        return None
    return git["commit"][:12] + (f"+{git['diff']}" if git.get("diff") else "")


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The epochs' lines as one series per metric; the clock's are left to the attempts."""
    names = dict.fromkeys(name for line in lines for name in line if name not in ("epoch", "seconds", "time"))
    return {name: [line.get(name, float("nan")) for line in lines] for name in names}


def attempt_line(directory: str, attempt: Attempt) -> dict[str, Any]:
    """An attempt as a line of a frame: the job's facts, and the controller's under `submitted`."""
    known = {"directory": directory, "attempt": attempt.number, "end": attempt.end, "message": attempt.message}
    return {**as_written(attempt.ran), **known, "submitted": as_written(attempt.submitted)}
