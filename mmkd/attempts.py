"""Read and write the records of a trial's attempts: the controller's and the job's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.records import Record, RunRecord, SubmissionRecord, as_written, write_record
from mmkd.rundir import TrialDir
from mmkd.schema import explain

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Attempt:
    """The controller's and the job's record of one attempt, without any value where there is none."""

    number: int
    submitted: SubmissionRecord
    ran: RunRecord

    @property
    def is_announced(self) -> bool:
        """True if the controller's record exists."""
        return bool(self.submitted.model_fields_set)

    @property
    def is_started(self) -> bool:
        """True if the job's own record exists."""
        return bool(self.ran.model_fields_set)

    @property
    def is_final(self) -> bool:
        """True if nobody will add to its records: it has ended, and the controller that announced it has noted so."""
        return bool(self.submitted.end or (self.ran.end and not self.is_announced))

    @property
    def end(self) -> str | None:
        """`complete`, a failure's class, or None if unknown. The controller knows best: it has read the scheduler."""
        return self.submitted.end or self.ran.end or None

    @property
    def message(self) -> str:
        """The reason of the failure in one line; empty if it did not fail."""
        return " ".join((self.submitted.message or self.ran.message).split())

    @property
    def node(self) -> str:
        """The node or host that it ran on."""
        return self.ran.node or self.submitted.node or self.ran.host

    @property
    def ended(self) -> float | None:
        """Time of its end in seconds since 1970, by the job's own clock if the job could say."""
        if self.ran.ended is not None or self.ran.started is None or self.submitted.seconds is None:
            return self.ran.ended or self.submitted.ended
        return self.ran.started + self.submitted.seconds

    @property
    def gpus(self) -> float:
        """GPUs of its job; where several trials share a job, its share."""
        visible = [name for name in self.ran.cuda_visible_devices.split(",") if name.strip()]
        return len(visible) if self.submitted.gpus is None else self.submitted.gpus

    def seconds(self, now: float, heard: float | None = None) -> float:
        """Seconds that it has run.

        Args:
            now: the time by this host's clock, for an attempt that runs here.
            heard: the time of the last epoch by its node's clock, for an attempt that runs elsewhere.
        """
        if self.ran.started is None:
            return 0.0
        if self.ended is None:
            until = now if self.ran.host == socket.gethostname() else heard or self.ran.started
            return max(until - self.ran.started, 0.0)
        known = (self.ran.seconds, self.submitted.seconds, self.submitted.elapsed)
        return max(next((seconds for seconds in known if seconds is not None), self.ended - self.ran.started), 0.0)


def read_attempt(directory: TrialDir, number: int) -> Attempt:
    """One attempt of a trial; a record that is absent or no complete JSON has no values.

    Raises:
        UserError: a record has an invalid value.
    """
    submitted = _read(directory.controller_record(number), SubmissionRecord)
    return Attempt(number, submitted, _read(directory.job_record(number), RunRecord))


def read_attempts(directory: TrialDir) -> list[Attempt]:
    """All attempts of a trial, in order."""
    try:
        found = os.listdir(directory.attempts)  # a glob would take most of the time of reading them
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = {name.split(".")[0] for name in found if name.endswith(".json")}
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
    _add(directory.controller_record(number), SubmissionRecord, facts)


def record_run(directory: TrialDir, number: int, **facts: Any) -> None:
    """Add facts to the job's record of an attempt."""
    _add(directory.job_record(number), RunRecord, facts)


def _read(path: Path, schema: type[R]) -> R:
    try:
        return schema.model_validate(read_json(path) or {})
    except ValidationError as error:
        raise UserError(f"{explain(error, path)}; remove it: a relaunch finds out how the attempt ended") from None


def _add(path: Path, schema: type[R], facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, schema.model_validate({**as_written(_read(path, schema)), **facts}))


def gpu_seconds_of(directories: Iterable[TrialDir]) -> float:
    """Sum the GPU-seconds of the trials' ended attempts."""
    attempts = (attempt for directory in directories for attempt in read_attempts(directory))
    return sum(attempt.submitted.gpu_seconds or 0.0 for attempt in attempts)
