"""Back off when somebody else cancels the study's jobs again and again."""

from __future__ import annotations

import time

from mmkd.formatting import duration

TOGETHER_SECONDS = 60.0
"""Jobs whose cancellation is noticed within this time were cancelled together."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 900.0
"""Seconds without submissions after the second storm, doubled each time."""
MOST = 5
"""After so many storms a person has to decide."""
FORGOTTEN_SECONDS = 3600.0
"""Storms before such a time without one do not count."""


class Storms:
    """Count storms: at least half of the study's jobs are cancelled together, not by its controller.

    `hopeless` says after the last one that a person has to decide, "" before.
    """

    def __init__(self) -> None:
        self.hopeless = ""
        self.count = 0
        self._began = self._last = float("-inf")
        self._cancelled = 0
        self._is_counted = False
        self._until = 0.0

    @property
    def is_pausing(self) -> bool:
        """True while nothing should be submitted."""
        return time.monotonic() < self._until

    def note(self, running: int) -> str:
        """Note a cancelled job, while `running` others are pending or run. Return a line about it, or ""."""
        now = time.monotonic()
        if now - self._began > TOGETHER_SECONDS:
            self._began, self._cancelled, self._is_counted = now, 0, False
        self._cancelled += 1
        if self._is_counted or self._cancelled < running:
            return ""
        self.count = 1 if now - self._last > FORGOTTEN_SECONDS else self.count + 1
        self._last, self._is_counted = now, True
        if self.count >= MOST:
            self.hopeless = (
                f"the study's jobs were cancelled {self.count} times, not by its controller: ask who cancels them"
            )
        if self.count < 2 or self.hopeless:
            return ""
        pause = min(FIRST_PAUSE * 2.0 ** (self.count - 2), LONGEST_PAUSE)
        self._until = now + pause
        return (
            f"the study's jobs were cancelled {self.count} times, not by its controller; the next ones are submitted "
            f"in {duration(pause)}. To end the study with its jobs: the launch command with --cancel"
        )
