"""Read and write the records of a trial's attempts: the controller's and the job's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkd.files import read_json, write_json
from mmkd.rundir import TrialDir


@dataclass(frozen=True)
class Attempt:
    """The controller's and the job's record of one attempt (absent keys: not known)."""

    number: int
    submitted: Mapping[str, Any]
    ran: Mapping[str, Any]

    @property
    def end(self) -> str | None:
        """`complete`, a failure's class, or None if unknown. The controller knows best: it has read the scheduler."""
        end = self.submitted.get("end") or self.ran.get("end")
        return str(end) if end else None

    @property
    def message(self) -> str:
        """The reason of the failure in one line; empty if it did not fail."""
        return str(self.submitted.get("message") or self.ran.get("message") or "")

    @property
    def epochs(self) -> int:
        """Epochs that were done when it ended, those of earlier attempts included."""
        return int(self.submitted.get("epochs", 0))


def read_attempt(directory: TrialDir, number: int) -> Attempt:
    """One attempt of a trial; nothing is known of one that there is not."""
    return Attempt(
        number, read_json(directory.controller_record(number)) or {}, read_json(directory.job_record(number)) or {}
    )


def read_attempts(directory: TrialDir) -> list[Attempt]:
    """All attempts of a trial, in order."""
    names = {p.name.split(".")[0] for p in directory.attempts.glob("[0-9]*.json")}
    return [read_attempt(directory, k) for k in sorted(int(name) for name in names if name.isdecimal())]


def current_attempt(directory: TrialDir) -> int:
    """The attempt that may write; 0 before the first submission."""
    try:
        return int(directory.attempt.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def last_attempt(directory: TrialDir) -> Attempt:
    """Read the records of a trial's current attempt."""
    return read_attempt(directory, current_attempt(directory))


def record_submission(directory: TrialDir, number: int, **facts: Any) -> None:
    """Add facts to the controller's record of an attempt."""
    _merge(directory.controller_record(number), facts)


def record_run(directory: TrialDir, number: int, **facts: Any) -> None:
    """Add facts to the job's record of an attempt."""
    _merge(directory.job_record(number), facts)


def _merge(path: Path, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**(read_json(path) or {}), **facts})


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """Sum the GPU-seconds of the trials' ended attempts."""
    attempts = (attempt for directory in directories for attempt in read_attempts(directory))
    return sum(float(attempt.submitted.get("gpu_seconds", 0.0)) for attempt in attempts)
