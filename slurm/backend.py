"""Where jobs run: one interface, the same for a laptop and a cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A command to run: `name` is shown in queues, `log` receives its output, `environment` is added to ours.

    `name` is unique among all jobs of a user, at all times. `memory` multiplies the memory that jobs usually get (after
    one ran out of it); `avoid` names nodes that failed; `after` is the id of a job that must have ended, in whatever
    way, before this one starts; `requeue`: the scheduler may run it again by itself.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: float = 1.0
    avoid: tuple[str, ...] = ()
    after: str = ""
    requeue: bool = False


@dataclass(frozen=True)
class Handle:
    """A submitted job: its name, and the id that the backend gave it ("" where whoever submitted died too early).

    Ids repeat on a cluster that was rebuilt, so the name counts too.
    """

    name: str
    id: str = ""


@dataclass(frozen=True)
class Report:
    """What a backend knows of a job.

    `failure` is a class of design's list ("" where it does not know, or the job may have succeeded: the job's own
    files say more); `message` is the scheduler's word; `id` is the job's, also where the handle has none; `node` is
    where it ran, where that is known.
    """

    alive: bool
    failure: str = ""
    message: str = ""
    id: str = ""
    node: str = ""


class SubmissionDelayed(Exception):
    """The job cannot be submitted now, but later: a full queue, a scheduler that does not answer.

    `certain`: no job was made; else there may be one, which a poll by name will show.
    """

    def __init__(self, message: str, *, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


class SubmissionRefused(Exception):
    """The scheduler will not take this job, now or later; the message holds its words and what to change."""


class Backend(Protocol):
    """Submit, poll, cancel. Nothing of it survives the controller but the handles, which a later one may poll."""

    name: str
    prompt: bool
    """Whether a poll costs nothing and knows of an end at once; else the job's own files are looked at first."""
    gpus: int
    """GPUs of each job."""

    def submit(self, job: Job) -> str:
        """Start or queue `job`; its id.

        Raises:
            SubmissionDelayed, SubmissionRefused: see these.
            OSError: it could not be started.
        """
        ...

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """The state of each job, of this controller or an earlier one; those it cannot tell of are left out."""
        ...

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """What the scheduler's accounting says of ended jobs (elapsed, gpu_seconds, node, ...), as far as it knows.

        It is asked at a polite rate, or `at_once`.
        """
        ...

    def cancel(self, handles: Collection[Handle]) -> None:
        """Ask jobs to end: they write a checkpoint first. Jobs that are gone are passed over.

        Raises:
            OSError: the scheduler does not answer; the jobs go on.
        """
        ...
