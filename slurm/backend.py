"""Where jobs run: one interface, the same for a laptop and a cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """A command to run: `name` is shown in queues, `log` receives its output, `environment` is added to ours."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a backend knows of a job.

    `failure` is a class of design's list ("" where it does not know, or the job may have succeeded: the job's own
    files say more); `message` is the scheduler's word.
    """

    alive: bool
    failure: str = ""
    message: str = ""


class Backend(Protocol):
    """Submit, poll, cancel. Nothing of it survives the controller but the ids, which a later one may poll."""

    name: str

    def submit(self, job: Job) -> str:
        """Start or queue `job`; its id, which identifies it for ever on this host or cluster.

        Raises:
            OSError: it could not be started.
        """
        ...

    def poll(self, ids: Collection[str]) -> dict[str, Report]:
        """The state of each job, of this controller or an earlier one."""
        ...

    def cancel(self, ids: Collection[str]) -> None:
        """Ask jobs to end: they write a checkpoint first. Jobs that are gone are passed over."""
        ...
