"""Ask squeue at a polite rate, without holding up the screen."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from slurm.accounting import NoAnswer, QueuedJob, squeue

POLITE_SECONDS = 30.0
"""Between two questions."""


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
