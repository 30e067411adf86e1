"""Ask Slurm in the background, so that a command that hangs stops nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from slurm.accounting import NoAnswer

QUICK_SECONDS = 5.0
"""Slurm mostly answers within this time, for which a caller waits."""

T = TypeVar("T")


class Question(Generic[T]):
    """A call of `ask` in its own thread; `began` is the monotonic time of its start."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self.began = time.monotonic()
        self._ask = ask
        self._answer: T | None = None
        self._refusal: NoAnswer | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()  # a daemon: whoever asks may leave

    def is_answered(self, patience: float) -> bool:
        """True if there is an answer or a refusal; waits for it for `patience` seconds."""
        return self._done.wait(patience)

    def answer(self) -> T:
        """The answer, once there is one.

        Raises:
            NoAnswer: Slurm's refusal.
        """
        if self._refusal is not None:
            raise self._refusal
        assert self._answer is not None
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except NoAnswer as refusal:
            self._refusal = refusal
        finally:
            self._done.set()
