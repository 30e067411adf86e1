"""What asks a controller to stop: signals, and the file that --cancel writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from slurm.accounting import NoAnswer, squeue
from sweeps.controller import Stop


class StopRequests:
    """Asked in every round of a controller. Signal handlers set a flag, nothing else.

    SIGINT and SIGTERM end its jobs too, SIGUSR1 leaves them to whoever launches next, and the stop file ends them. In
    a job of its own (`detached`) SIGTERM, by which Slurm preempts, and SIGUSR2, which comes some time before the time
    limit, leave them too: a successor goes on.

    Args:
        file: what --cancel writes.
        detached: the controller runs in a job of its own.
    """

    def __init__(self, file: Path, *, detached: bool) -> None:
        self.file, self.detached = file, detached
        self.received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *([signal.SIGUSR2] if detached else [])):
            signal.signal(number, lambda got, frame: self.received.append(got))

    def __call__(self) -> Stop | None:
        """What is asked, if anything."""
        if self.received:
            with_jobs = (signal.SIGINT,) if self.detached else (signal.SIGINT, signal.SIGTERM)
            return Stop.WITH_JOBS if self.received[0] in with_jobs else Stop.WITHOUT_JOBS
        return Stop.WITH_JOBS if self.file.exists() else None

    @property
    def exit_code(self) -> int:
        """As shells have it; the stop file counts as SIGTERM."""
        return 128 + (self.received[0] if self.received else signal.SIGTERM)

    def wants_successor(self) -> bool:
        """Whether a detached controller was stopped by Slurm, which will not run it again: not by its user."""
        if not self.detached or not self.received:
            return False
        return self.received[0] == signal.SIGUSR2 or (self.received[0] == signal.SIGTERM and _is_running())


def _is_running() -> bool:
    """Whether Slurm counts our job as running still: it is preempted then; else cancelled, or requeued already."""
    try:
        return any(job.id == os.environ.get("SLURM_JOB_ID") and job.state == "RUNNING" for job in squeue())
    except NoAnswer:
        return False
