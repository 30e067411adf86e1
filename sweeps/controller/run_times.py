"""Measure how long jobs have run without comparing the clocks of two machines."""

from __future__ import annotations

import time

from mmkd.metrics_log import last_metrics
from mmkd.records import RunRecord
from mmkd.rundir import TrialDir


class RunTimes:
    """Seconds that running attempts have run: by their node's clock until they were first seen, since then by ours."""

    def __init__(self) -> None:
        self._seen: dict[TrialDir, tuple[float, float]] = {}
        """Seconds that an attempt had run at a monotonic time."""

    def __len__(self) -> int:
        return len(self._seen)

    def see(self, directory: TrialDir, ran: RunRecord) -> bool:
        """Begin to measure an attempt that has started. Return True at the first call."""
        if ran.started is None or directory in self._seen:
            return False
        last = float(last_metrics(directory).get("time", ran.started))
        self._seen[directory] = (max(last - ran.started, 0.0), time.monotonic())
        return True

    def seconds(self, directory: TrialDir) -> float:
        """Seconds that an attempt has run; 0.0 if it was not seen."""
        if directory not in self._seen:
            return 0.0
        before, since = self._seen[directory]
        return before + time.monotonic() - since

    def end(self, directory: TrialDir, ran: RunRecord) -> float:
        """Stop measuring an attempt that has ended; return its seconds, by its own record if that has them."""
        self.see(directory, ran)
        seconds = self.seconds(directory)
        self._seen.pop(directory, None)
        if ran.seconds is not None:
            return max(ran.seconds, 0.0)
        return max(ran.ended - ran.started, 0.0) if ran.ended and ran.started else seconds
