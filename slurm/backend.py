"""The interface to where jobs run, the same for a laptop and a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A command to run. Its output goes to `log`; `environment` is added to the launch's own.

    Args:
        name: shown in queues; unique among all jobs of a user, past ones included.
        command: the program and its arguments.
        log: file for standard output and error.
        environment: variables to set.
        memory: factor on the usual memory of a job (above 1 after one ran out of it).
        avoid: nodes that failed.
        after: id of a job that must have ended, successfully or not, before this one starts.
        requeue: True if the scheduler may run the job again by itself.
        copies: number of such jobs, submitted as one array; 0 for a single job.
        failures: failure classes of earlier attempts, in order.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: float = 1.0
    avoid: tuple[str, ...] = ()
    after: str = ""
    requeue: bool = False
    copies: int = 0
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handle:
    """A submitted job: its name, and the backend's id ("" if the submitter died before it recorded the id).

    Ids repeat on a cluster that was rebuilt, so both must match. Where a worker runs the job, name and id are the
    worker's, and `worker` is the job's own name. `script` is the path of the job's sbatch script, if it is known: a job
    that somebody has renamed is recognized by it.
    """

    name: str
    id: str = ""
    worker: str = ""
    script: str = field(default="", compare=False)


@dataclass(frozen=True)
class Report:
    """The state of a job as its backend knows it.

    Args:
        alive: True if the job waits or runs.
        failure: a failure class of the design; "" if unknown, or if the job may have succeeded (its files tell).
        message: the scheduler's words.
        handle: the job's handle with its id, also if the polled one has none; None if nothing new is known.
        node: the node it ran on, if known.
        waits: why a pending job waits, in the scheduler's words; "" if it is not pending.
    """

    alive: bool
    failure: str = ""
    message: str = ""
    handle: Handle | None = None
    node: str = ""
    waits: str = ""


class SubmissionDelayed(Exception):
    """The job cannot be submitted now: the queue is full, or the scheduler does not answer. Try again later.

    `certain` is True if no job was created; otherwise one may exist, and a poll by name will show it.
    """

    def __init__(self, message: str, *, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


class SubmissionRefused(Exception):
    """The scheduler will never accept this job. The message holds its words and the option to change."""


class Backend(Protocol):
    """Submit, poll and cancel jobs. Only the handles outlive the controller; a later one polls by them."""

    name: str
    prompt: bool
    """True if polling is cheap and sees exits immediately; otherwise the job's own files are read first."""
    gpus: int
    """GPUs per job."""
    round_seconds: float = 0.05
    """Shortest time between two rounds of a controller, which looks at each running job."""
    trouble: str = ""
    """The reason why nothing new is known of the jobs, all of which count as running meanwhile; "" if there is none."""

    def submit(self, job: Job) -> Handle:
        """Start or queue `job`.

        Raises:
            SubmissionDelayed, SubmissionRefused: see these.
            OSError: it could not be started.
        """
        ...

    def slots(self, wanted: Callable[[], int]) -> int | None:
        """Jobs that may run at once, None for any number; `wanted` counts those that run or could be submitted."""
        return None

    def gpus_for(self, job: Job) -> float:
        """GPUs of a job, or its share of a GPU."""
        return self.gpus

    def request_of(self, job: Job) -> dict[str, str]:
        """The part of a job's request that depends on its earlier failures, for its record."""
        return {}

    def idle_gpu_seconds(self) -> float:
        """GPU-seconds that were spent without a job."""
        return 0.0

    def take_notes(self) -> list[str]:
        """Lines for the user that were not taken yet."""
        return []

    def release(self) -> None:
        """End what waits for further jobs: none will be submitted."""
        return None

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """The state of each job, submitted by this controller or an earlier one; unknown jobs are left out."""
        ...

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """Accounting records of ended jobs (elapsed, gpu_seconds, node, ...), if the backend keeps any.

        The scheduler is asked at a polite rate, or immediately with `at_once`.
        """
        return {}

    def cancel(self, handles: Collection[Handle]) -> None:
        """Ask jobs to end; they write a checkpoint first. Ended jobs are skipped.

        Raises:
            OSError: the scheduler does not answer, and the jobs continue.
        """
        ...
