"""What a trial is doing, by its files, the queue and this host's processes together."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

from mmkd.trial_state import Failure, State
from slurm.accounting import QueuedJob
from slurm.backend import Handle
from slurm.local_backend import LocalBackend
from slurm.monitoring.squeue_polling import Answer
from slurm.monitoring.trials import AttemptStory, Trial

GOES_ON = {Failure.PREEMPTED, Failure.TIMEOUT, Failure.NODE_FAIL, Failure.CANCELLED}
"""After these a trial goes on from its checkpoint, at once or when its study is launched again."""

NEWS_SECONDS = 10.0
"""A job that was submitted so shortly before squeue was asked may not be in the answer yet."""


class Condition(StrEnum):
    """What a trial is doing, by its files and the queue together."""

    CREATED = "created"
    """Not submitted yet."""
    WAITING = "waiting"
    """In the queue."""
    STARTING = "starting"
    """A local process or a job on a node, not heard of yet."""
    RUNNING = "running"
    LOST = "lost"
    """It should run, but its job is gone: the controller will see that, or a relaunch."""
    INTERRUPTED = "interrupted"
    """Its last attempt was ended from outside; it goes on from its checkpoint."""
    FAILED = "failed"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"


OPEN = frozenset(Condition) - {Condition.FAILED, Condition.COMPLETE, Condition.PRUNED, Condition.DIVERGED}
BUSY = frozenset({Condition.RUNNING, Condition.STARTING})


@dataclass(frozen=True)
class Watched:
    """A trial, what it is doing, and its job where the queue shows it."""

    trial: Trial
    condition: Condition
    job: QueuedJob | None


def watch(trial: Trial, answer: Answer | None) -> Watched:
    """What a trial is doing."""
    if trial.status is not None:
        return Watched(trial, Condition(trial.status.value), None)
    last = trial.last
    if trial.state in (State.ABSENT, State.CREATED) or last is None:
        return Watched(trial, Condition.CREATED, None)
    if trial.state is State.FAILED:
        return Watched(trial, Condition.INTERRUPTED if last.end in GOES_ON else Condition.FAILED, None)
    runs = trial.state is State.RUNNING
    if last.backend == "slurm":
        return _watch_slurm(trial, last, runs, answer)
    if last.backend == "local" and last.job.startswith(f"{socket.gethostname()}:"):
        handle = Handle(last.job_name, last.job)
        if not LocalBackend().poll([handle])[handle].alive:
            return Watched(trial, Condition.LOST, None)
    return Watched(trial, Condition.RUNNING if runs else Condition.STARTING, None)


def _watch_slurm(trial: Trial, last: AttemptStory, runs: bool, answer: Answer | None) -> Watched:
    """As the queue says; where it says nothing, what has not been heard of waits."""
    job = answer.find(last.job_name, last.job) if answer else None
    if answer is None or (job is None and last.submitted > answer.asked - NEWS_SECONDS):
        return Watched(trial, Condition.RUNNING if runs else Condition.WAITING, None)
    if job is None or job.ended:
        return Watched(trial, Condition.LOST, job)
    if job.state in ("PENDING", "CONFIGURING"):
        return Watched(trial, Condition.WAITING, job)
    return Watched(trial, Condition.RUNNING if runs else Condition.STARTING, job)
