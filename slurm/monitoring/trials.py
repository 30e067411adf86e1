"""Read one trial's files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkd.attempts import Attempt, read_attempts
from mmkd.finished import attempts_of
from mmkd.metrics_log import tail_metrics
from mmkd.records import FinishedTrial
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
class Trial:
    """A trial: `state` by its directory alone, `status` and `value` (at the best epoch) once it is finished.

    `epoch` counts epochs done; `curve` is the selection metric on valid over the last epochs; `pace` is seconds an
    epoch; `heard` is when the job last wrote something. Curves of finished trials are not read.
    """

    entry: Entry
    state: State
    attempts: tuple[Attempt, ...] = ()
    status: Status | None = None
    epoch: int = 0
    curve: tuple[float, ...] = ()
    value: float | None = None
    accuracy: float | None = None
    pace: float | None = None
    heard: float | None = None

    @property
    def last(self) -> Attempt | None:
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
    attempts = tuple(read_attempts(entry.directory))
    state = trial_state(entry.directory, attempts)
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


def _finished(entry: Entry, attempts: tuple[Attempt, ...]) -> Trial:
    """A finished trial, with the summary of its result, which takes a tenth of the time of all of it."""
    found = read_summary(entry.directory.result)
    return _ended(entry, attempts, found.status, found.epochs, found.metrics)


def finished_trial(entry: Entry, line: FinishedTrial) -> Trial:
    """A finished trial by its line in `finished.jsonl`: what `read_trial` reads from its directory."""
    return _ended(entry, tuple(attempts_of(line)), Status(line.status), line.epochs, line.metrics)


def _ended(
    entry: Entry,
    attempts: tuple[Attempt, ...],
    status: Status,
    epochs: int,
    metrics: Mapping[str, Mapping[str, float]],
) -> Trial:
    valid = metrics.get("valid", {})
    return Trial(
        entry,
        State.FINISHED,
        attempts,
        status=status,
        epoch=epochs,
        value=_number(valid, entry.selection),
        accuracy=_number(valid, "accuracy"),
    )


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None where there is none."""
    try:
        value = float(values[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
