"""Collect the requests to stop a controller: signals and the stop file."""

from __future__ import annotations

import os
import signal
from enum import Enum
from pathlib import Path

from slurm.accounting import NoAnswer, squeue


class Stop(Enum):
    """Ways to stop a controller: with its jobs, or leaving them to its successor."""

    WITH_JOBS = "with jobs"
    WITHOUT_JOBS = "without jobs"


class Interrupted(Exception):
    """The controller was asked to stop; everything is on disk."""


class Halted(Exception):
    """The controller cannot go on by itself: a person has to change something, and then launch again."""


class StopRequests:
    """Collect requests to stop the controller. Signal handlers only set a flag.

    SIGINT, SIGTERM and the stop file end its jobs too; SIGUSR1 leaves them to the next launch. In a detached
    controller, SIGTERM (preemption) and SIGUSR2 (sent some time before the time limit) leave them to a successor.

    Args:
        file: the file that --cancel writes.
        detached: True if the controller runs as a Slurm job.
    """

    def __init__(self, file: Path, *, detached: bool) -> None:
        self.file, self.detached = file, detached
        self.received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *([signal.SIGUSR2] if detached else [])):
            signal.signal(number, lambda got, frame: self.received.append(got))

    def __call__(self) -> Stop | None:
        """Return the request, if there is one."""
        if self.received:
            with_jobs = (signal.SIGINT,) if self.detached else (signal.SIGINT, signal.SIGTERM)
            return Stop.WITH_JOBS if self.received[0] in with_jobs else Stop.WITHOUT_JOBS
        return Stop.WITH_JOBS if self.file.exists() else None

    @property
    def exit_code(self) -> int:
        """128 plus the signal, as in shells; the stop file counts as SIGTERM."""
        return 128 + (self.received[0] if self.received else signal.SIGTERM)

    def wants_successor(self) -> bool:
        """True if Slurm, not the user, stopped a detached controller and will not restart it."""
        if not self.detached or not self.received:
            return False
        return self.received[0] == signal.SIGUSR2 or (self.received[0] == signal.SIGTERM and _is_running())


def _is_running() -> bool:
    """True if Slurm still counts this job as running: it is preempted. Otherwise it was cancelled or requeued."""
    try:
        return any(job.id == os.environ.get("SLURM_JOB_ID") and job.state == "RUNNING" for job in squeue())
    except NoAnswer:
        return False
