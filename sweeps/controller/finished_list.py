"""Keep a row's `finished.jsonl`, a cache of its finished trials, up to date."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from mmkd.errors import UserError
from mmkd.finished import add_finished, describe, line_name, read_finished, write_finished
from mmkd.lock import FileLock, LockLost
from mmkd.result_file import ResultError
from mmkd.rundir import RowDir, TrialDir


class FinishedList:
    """The lines of `finished.jsonl` that hold, and the finished trials that it lacks.

    Lines that do not hold are removed from the file. That may fail, as any write here: the file is only a cache.

    Args:
        directory: the row's.
        lock: the row's lock; nothing is written without holding it.
    """

    def __init__(self, directory: RowDir, lock: FileLock) -> None:
        self._directory, self._lock = directory, lock
        self._missing: dict[TrialDir, None] = {}
        found = read_finished(directory, careful=True)
        self.lines = found.trials
        """By `mmkd.finished.line_name`."""
        if not found.is_clean:
            with suppress(OSError, LockLost):  # its readers leave out the same lines
                lock.check()
                write_finished(directory, found.trials.values())

    def __contains__(self, trial: TrialDir) -> bool:
        """True if the trial had a line at the launch: its result was right and has not changed since."""
        return line_name(trial) in self.lines

    def miss(self, trial: TrialDir) -> None:
        """Remember a finished trial that has to be added."""
        if trial not in self:
            self._missing[trial] = None

    @property
    def is_complete(self) -> bool:
        """True if nothing has to be added."""
        return not self._missing

    def add_missing(self, unaccounted: Collection[TrialDir] = (), limit: int | None = None) -> None:
        """Append finished trials, in one write.

        Those whose costs the scheduler has not accounted yet have to wait: their records will change.
        """
        lines = []
        for trial in [t for t in self._missing if t not in unaccounted][:limit]:
            del self._missing[trial]
            with suppress(ResultError, UserError, OSError):  # readers of the directory report it
                line, stays_true = describe(trial)
                lines += [line] if stays_true else []
        if lines:
            self._lock.check()
            with suppress(OSError):  # the next launch adds what is missing
                add_finished(self._directory, lines)
