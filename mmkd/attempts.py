"""Read and write the records of a trial's attempts: the controller's and the job's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkd.files import read_json, write_json
from mmkd.rundir import TrialDir


@dataclass(frozen=True)
class Attempt:
    """The controller's and the job's record of one attempt. Times are in seconds since 1970; None if not known."""

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
        """Why it failed, in one line; empty if it did not."""
        return " ".join(str(self.submitted.get("message") or self.ran.get("message") or "").split())

    @property
    def epochs(self) -> int:
        """Epochs that were done when it ended, those of earlier attempts included."""
        return int(self.submitted.get("epochs", 0))

    @property
    def backend(self) -> str:
        """The name of the backend that it was submitted to."""
        return str(self.submitted.get("backend") or "")

    @property
    def job_name(self) -> str:
        """The name of its job."""
        return str(self.submitted.get("name") or "")

    @property
    def job_id(self) -> str:
        """The backend's id of its job; empty if the controller died before it recorded the id."""
        return str(self.submitted.get("job") or "")

    @property
    def node(self) -> str:
        """The node or host that it ran on."""
        return str(self.ran.get("node") or self.submitted.get("node") or self.ran.get("host") or "")

    @property
    def submitted_at(self) -> float | None:
        """Time of its submission."""
        return finite(self.submitted, "submitted")

    @property
    def started(self) -> float | None:
        """Time of the job's first message."""
        return finite(self.ran, "started")

    @property
    def ended(self) -> float | None:
        """Time of its end, by the job's own clock if the job could say."""
        return finite(self.ran, "ended") or finite(self.submitted, "ended")

    @property
    def gpus(self) -> int:
        """GPUs of its job."""
        visible = [name for name in str(self.ran.get("cuda_visible_devices") or "").split(",") if name.strip()]
        gpus = finite(self.submitted, "gpus")
        return len(visible) if gpus is None else int(gpus)

    @property
    def gpu_seconds(self) -> float:
        """Cost of an ended attempt, as accounted or reckoned by the controller."""
        return finite(self.submitted, "gpu_seconds") or 0.0

    def seconds(self, now: float) -> float:
        """Seconds that it has run by `now`."""
        return 0.0 if self.started is None else max((self.ended or now) - self.started, 0.0)


def finite(values: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number; None where there is none."""
    try:
        value = float(values[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def read_attempt(directory: TrialDir, number: int) -> Attempt:
    """One attempt of a trial; nothing is known of one that there is not.

    Raises:
        ValueError: a record is not a JSON object.
    """
    submitted, ran = directory.controller_record(number), directory.job_record(number)
    return Attempt(number, _read_record(submitted), _read_record(ran))


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


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json(path) or {}
    if not isinstance(record, dict):
        raise ValueError(f"{path}: damaged: not a JSON object")
    return record


def _merge(path: Path, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**_read_record(path), **facts})


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """Sum the GPU-seconds of the trials' ended attempts."""
    return sum(attempt.gpu_seconds for directory in directories for attempt in read_attempts(directory))
