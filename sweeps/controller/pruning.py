"""Let the rows' pruners stop running trials."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from sweeps.controller.jobs import Running

PRUNING_SECONDS = 5.0
"""Interval between looks at the progress of running trials in rows with a pruner."""


class Pruning:
    """Ask rows with a pruner about their running trials, at intervals."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def __call__(self, running: Iterable[Running]) -> Iterator[str]:
        """Yield the labels of trials that were asked to stop."""
        if time.monotonic() - self._looked < PRUNING_SECONDS:
            return
        self._looked = time.monotonic()
        for job in running:
            if job.owner is not None and job.owner.wants_pruned(job.task):
                yield job.task.label
