"""Print a running study's events, one line each, and its progress; in a terminal on a line that moves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from mmkd.formatting import count, duration, remaining
from mmkd.metrics_log import last_metrics
from mmkd.terminal import printable
from sweeps.controller.tasks import Task

PLAIN_SECONDS = 20.0
"""Interval of progress lines without a terminal."""

SHOWN = 8
"""Number of running trials to name: a line is short, and each costs a file."""


class Reporter:
    """Prints events and progress to `console`; plain lines where it is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self._shown = 0.0
        self._finished = 0
        self._left: int | None = None
        self._status: Status | None = None

    def __enter__(self) -> Reporter:
        if self.console.is_terminal:
            self._status = self.console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def event(self, text: str) -> None:
        """Print an event."""
        self.console.print(f"[{self._clock()}] {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def progress(self, left: int, running: Sequence[Task], pending: Sequence[str] = ()) -> None:
        """Show the progress: `left` runs are not finished, those `running` and `pending` (by reason) among them."""
        if self._left is not None and left < self._left:
            self._finished += self._left - left
        self._left = left
        pause = 1.0 if self._status is not None else PLAIN_SECONDS
        now = time.monotonic()
        if now - self._shown < pause or not left:
            return
        self._shown = now
        text = f"{count(left, 'run')} to go{self._forecast(left)}; {_describe(running)}{_describe_pending(pending)}"
        if self._status is not None:
            self._status.update(escape(f"[{self._clock()}] {text}"))
        else:
            self.event(text)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def _forecast(self, left: int) -> str:
        if self._finished < 3:
            return ""
        pace = (time.monotonic() - self.started) / self._finished
        return f", about {duration(remaining(left * pace, 1))}"


def _describe(running: Sequence[Task]) -> str:
    """Describe running trials with their epochs and last validation accuracy."""
    parts = []
    for task in running[:SHOWN]:
        last = last_metrics(task.directory)
        epochs = f"epoch {last.get('epoch', 0)}/{task.config.training.epochs}"
        accuracy = f", accuracy {last['valid_accuracy']:.3f}" if "valid_accuracy" in last else ""
        parts.append(f"{task.label} ({epochs}{accuracy})")
    if len(running) > SHOWN:
        parts.append(f"{len(running) - SHOWN} more")
    return "running " + ", ".join(parts) if parts else "nothing runs"


def _describe_pending(reasons: Sequence[str]) -> str:
    """Count pending jobs, with the scheduler's reasons, the most frequent first."""
    if not reasons:
        return ""
    why = ", ".join(f"{n} {reason}" for reason, n in Counter(reasons).most_common())
    return f"; {len(reasons)} pending ({why})"
