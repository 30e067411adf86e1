"""A controller's job that runs, that has ended, or whose costs are not known yet."""

from __future__ import annotations

from dataclasses import dataclass

from mmkd.rundir import TrialDir
from slurm.backend import Handle
from sweeps.controller.row import RowWork
from sweeps.controller.tasks import Task


@dataclass(frozen=True)
class Running:
    """A job that is, or may be, alive; `owner` is None for a teacher."""

    task: Task
    owner: RowWork | None
    attempt: int
    handle: Handle
    gpus: float
    """GPUs of its job, or its share of them."""
    avoid: tuple[str, ...] = ()
    """Nodes that it was to avoid."""


@dataclass(frozen=True)
class Ended:
    """An attempt that is over: `end` is complete or a failure's class."""

    running: Running
    end: str
    message: str


@dataclass(frozen=True)
class Unaccounted:
    """An ended attempt whose cost in GPU-seconds was `reckoned` here, at the monotonic time `since`."""

    directory: TrialDir
    attempt: int
    reckoned: float
    since: float
