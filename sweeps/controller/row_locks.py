"""Take the locks of rows, or wait until they are free."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mmkd.errors import UserError
from mmkd.lock import FileLock, LockHeld
from mmkd.rundir import RowDir


@dataclass
class RowLocks:
    """Locks of rows: those that we hold, and the holders of the others."""

    held: dict[RowDir, FileLock] = field(default_factory=dict)
    refused: dict[RowDir, str] = field(default_factory=dict)

    def renew(self) -> None:
        """Renew the heartbeats, in work that takes minutes.

        Raises:
            LockLost: another process has taken a row over.
        """
        for lock in self.held.values():
            lock.renew()


@contextmanager
def take_rows(rows: Iterable[RowDir], option: str = "") -> Iterator[RowLocks]:
    """Take the locks of rows that nobody holds, and release them in the end.

    Raises:
        UserError: a controller is at work on a row, and the command's `option` needs all of them.
    """
    locks = RowLocks()
    try:
        for row in rows:
            lock = FileLock(row.lock)
            try:
                lock.acquire()
            except LockHeld as held:
                if option:
                    message = f"{option}: a controller is at work: {held}; wait for it, or --cancel it"
                    raise UserError(message) from None
                locks.refused[row] = str(held)
            else:
                locks.held[row] = lock
        yield locks
    finally:
        for lock in locks.held.values():
            lock.release()


def wait_for_rows(rows: Iterable[RowDir], seconds: float) -> None:
    """Wait until nobody holds any of the rows, at most `seconds`.

    A controller that was killed on another node counts as dead only once its heartbeat is old.
    """
    rows, said, deadline = list(rows), "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        with take_rows(row for row in rows if row.path.is_dir()) as locks:
            refused = list(locks.refused.values())
        if not refused:
            return
        if said != refused[0].partition(", heard")[0]:
            said = refused[0].partition(", heard")[0]
            print(f"waiting: {said}", flush=True)
        time.sleep(2.0)
