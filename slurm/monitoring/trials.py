"""Read one trial's files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkd.attempts import Attempt, read_attempts
from mmkd.metrics_log import tail_metrics
from mmkd.result_file import Status, read_summary
from mmkd.rundir import TrialDir
from mmkd.trial_state import State, trial_state


@dataclass(frozen=True)
class Entry:
    """The directory of a trial, and the facts known from elsewhere.

    `owner` is its row's directory, or what a teacher shares with those that differ only in the seed; `kind` is tuning,
    confirm or teacher. It is shown as `label` (its row) and `name`: t3 is trial 3, s1 seed 1.
    """

    directory: TrialDir
    owner: str
    kind: str
    label: str
    name: str
    epochs: int
    selection: str


@dataclass(frozen=True)
class AttemptStory:
    """One attempt by the controller's record and the job's. Times in seconds since 1970, None: not known."""

    number: int
    end: str
    message: str
    backend: str
    job: str
    job_name: str
    node: str
    submitted: float
    started: float | None
    ended: float | None
    gpus: int
    gpu_seconds: float

    def seconds(self, now: float) -> float:
        """Seconds it has run by `now`, from the job's first message on."""
        return 0.0 if self.started is None else max((self.ended or now) - self.started, 0.0)


@dataclass(frozen=True)
class Trial:
    """A trial: `state` by its directory alone, `status` and `value` (at the best epoch) once it is finished.

    `epoch` counts epochs done; `curve` is the selection metric on valid over the last epochs; `pace` is seconds an
    epoch; `heard` is when the job last wrote something. Curves of finished trials are not read.
    """

    entry: Entry
    state: State
    attempts: tuple[AttemptStory, ...] = ()
    status: Status | None = None
    epoch: int = 0
    curve: tuple[float, ...] = ()
    value: float | None = None
    accuracy: float | None = None
    pace: float | None = None
    heard: float | None = None

    @property
    def last(self) -> AttemptStory | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None


def stamp(directory: TrialDir) -> tuple[tuple[int, int], ...]:
    """Equal as long as nothing of an unfinished trial has changed: all its files come by rename, but the metrics."""
    return tuple(_mark(path) for path in (directory.path, directory.attempts, directory.metrics))


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def read_trial(entry: Entry) -> Trial:
    """Read a trial's files.

    Raises:
        OSError: a file cannot be read just now.
        ResultError: its result cannot be read.
    """
    read = read_attempts(entry.directory)
    state = trial_state(entry.directory, read)
    attempts = tuple(map(_story, read))
    if state is State.FINISHED:
        return _finished(entry, attempts)
    lines = tail_metrics(entry.directory)
    last = lines[-1] if lines else {}
    key = f"valid_{entry.selection}"
    epoch, seconds = int(_number(last, "epoch") or 0), _number(last, "seconds")
    return Trial(
        entry,
        state,
        attempts,
        epoch=epoch,
        curve=tuple(value for line in lines if (value := _number(line, key)) is not None),
        value=_number(last, key),
        accuracy=_number(last, "valid_accuracy"),
        pace=seconds / epoch if seconds and epoch else None,
        heard=_number(last, "time"),
    )


def _finished(entry: Entry, attempts: tuple[AttemptStory, ...]) -> Trial:
    """A finished trial, with the summary of its result, which takes a tenth of the time of all of it."""
    found = read_summary(entry.directory.result)
    valid = found.metrics.get("valid", {})
    return Trial(
        entry,
        State.FINISHED,
        attempts,
        status=found.status,
        epoch=found.epochs,
        value=_number(valid, entry.selection),
        accuracy=_number(valid, "accuracy"),
    )


def _story(attempt: Attempt) -> AttemptStory:
    submitted, ran = attempt.submitted, attempt.ran
    visible = [name for name in str(ran.get("cuda_visible_devices") or "").split(",") if name.strip()]
    gpus = _number(submitted, "gpus")
    return AttemptStory(
        number=attempt.number,
        end=attempt.end or "",
        message=" ".join(attempt.message.split()),
        backend=str(submitted.get("backend") or ""),
        job=str(submitted.get("job") or ""),
        job_name=str(submitted.get("name") or ""),
        node=str(ran.get("node") or submitted.get("node") or ran.get("host") or ""),
        submitted=_number(submitted, "submitted") or 0.0,
        started=_number(ran, "started"),
        ended=_number(ran, "ended") or _number(submitted, "ended"),
        gpus=len(visible) if gpus is None else int(gpus),
        gpu_seconds=_number(submitted, "gpu_seconds") or 0.0,
    )


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None where there is none."""
    try:
        value = float(values[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
