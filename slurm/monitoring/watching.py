"""Ask squeue at a polite rate, and join a trial's state with its answer and this host's processes."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mmkd.attempts import Attempt
from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.accounting import NoAnswer, QueuedJob, squeue
from slurm.backend import Handle
from slurm.local_backend import LocalBackend
from slurm.monitoring.trials import Trial

POLITE_SECONDS = 30.0
"""Between two questions."""
NEWS_SECONDS = 10.0
"""A job that was submitted so shortly before squeue was asked may not be in the answer yet."""


@dataclass(frozen=True)
class Answer:
    """The queue at `asked` (seconds since 1970), by job id; `problem` is why there is no newer answer."""

    asked: float
    jobs: Mapping[str, QueuedJob] = field(default_factory=dict)
    problem: str = ""

    def find(self, name: str, identifier: str) -> QueuedJob | None:
        """The job of an id, if it is of that name too: ids repeat on a cluster that was rebuilt. Else by name."""
        if identifier:
            job = self.jobs.get(identifier)
            return job if job is not None and job.name == name else None
        return next((job for job in self.jobs.values() if job.name == name), None)


class Squeue:
    """The last answer of squeue. `answer` is None until there is one."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._asked = float("-inf")
        self._thread: threading.Thread | None = None

    def ask(self, users: Collection[str], *, wait: bool = False) -> None:
        """Ask for the users' jobs, in the background, unless it was asked a short while ago; `wait` for the answer."""
        running = self._thread is not None and self._thread.is_alive()
        if running or not users or time.monotonic() - self._asked < POLITE_SECONDS or shutil.which("squeue") is None:
            return
        self._asked = time.monotonic()
        # A daemon: squeue may hang for a minute, and who watches may leave at once.
        self._thread = threading.Thread(target=self._question, args=(",".join(sorted(users)),), daemon=True)
        self._thread.start()
        if wait:
            self._thread.join()

    def _question(self, users: str) -> None:
        asked = time.time()
        try:
            self.answer = Answer(asked, {job.id: job for job in squeue(users)})
        except NoAnswer as error:
            before = self.answer or Answer(0.0)
            self.answer = Answer(before.asked, before.jobs, " ".join(str(error).split()))


class Sign(StrEnum):
    """A detail of a pending or running trial that its files do not tell."""

    STARTING = "starting"
    """A local process or a job on a node that has written nothing yet."""
    LOST = "lost"
    """Its job disappeared without recording an end; the controller or the next launch will notice."""


@dataclass(frozen=True)
class Watched:
    """A trial, its state, and its job where the queue shows it."""

    trial: Trial
    state: State
    sign: Sign | None = None
    job: QueuedJob | None = None

    @property
    def shown(self) -> State | Sign | Status:
        """The word for it: the sign of a live trial, the status of a finished one, else its state."""
        return self.sign or self.trial.status or self.state

    @property
    def is_open(self) -> bool:
        """True if an attempt runs or will run."""
        return self.state.is_due or self.state.is_live

    @property
    def runs(self) -> bool:
        """True if its job trains."""
        return self.shown is State.RUNNING

    @property
    def is_busy(self) -> bool:
        """True if it has a slot."""
        return self.shown in (State.RUNNING, Sign.STARTING)


def watch(trial: Trial, answer: Answer | None) -> Watched:
    """Join a trial with squeue's last answer."""
    watched, last = Watched(trial, trial.state), trial.last
    if not trial.state.is_live or last is None:
        return watched
    sign = Sign.STARTING if trial.state is State.PENDING else None
    if last.submitted.backend == "slurm":
        return _watch_slurm(watched, last, sign, answer)
    if last.submitted.backend == "local" and last.submitted.job.startswith(f"{socket.gethostname()}:"):
        handle = Handle(last.submitted.name, last.submitted.job)
        if not LocalBackend().poll([handle])[handle].alive:
            sign = Sign.LOST
    return replace(watched, sign=sign)


def _watch_slurm(watched: Watched, last: Attempt, sign: Sign | None, answer: Answer | None) -> Watched:
    """Believe the queue; where it does not show the job yet, the files."""
    job = answer.find(last.submitted.name, last.submitted.job) if answer else None
    if answer is None or (job is None and (last.submitted.submitted or 0.0) > answer.asked - NEWS_SECONDS):
        return watched
    if job is None or job.ended:
        return replace(watched, sign=Sign.LOST, job=job)
    if job.state in ("PENDING", "CONFIGURING"):
        return replace(watched, state=State.PENDING, job=job)
    return replace(watched, sign=sign, job=job)
