"""Take the locks of rows, or wait until they are free."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from mmkd.lock import FileLock, LockHeld
from mmkd.rundir import RowDir


@dataclass
class RowLocks:
    """Locks of rows: those that we hold, and for those that somebody else holds, who does."""

    held: dict[RowDir, FileLock] = field(default_factory=dict)
    refused: dict[RowDir, str] = field(default_factory=dict)

    def renew(self) -> None:
        """Fresh heartbeats, for work that takes minutes.

        Raises:
            LockLost: another process has taken a row over.
        """
        for lock in self.held.values():
            lock.renew()

    def release(self) -> None:
        """Give all locks back."""
        for lock in self.held.values():
            lock.release()
        self.held.clear()

    def __enter__(self) -> RowLocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def take_rows(rows: Iterable[RowDir]) -> RowLocks:
    """Take the locks of rows as far as nobody holds them; use it in a `with`, which gives them back."""
    locks = RowLocks()
    for row in rows:
        lock = FileLock(row.lock)
        try:
            lock.acquire()
        except LockHeld as held:
            locks.refused[row] = str(held)
        else:
            locks.held[row] = lock
    return locks


def wait_for_rows(rows: Iterable[RowDir], seconds: float) -> None:
    """Wait until nobody holds any of the rows, or so many seconds have gone by.

    A controller that was killed on another node is known for dead only when its heartbeat has grown old.
    """
    rows, said, deadline = list(rows), "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        with take_rows(row for row in rows if row.path.is_dir()) as locks:
            refused = list(locks.refused.values())
        if not refused:
            return
        if said != refused[0].partition(", heard")[0]:
            said = refused[0].partition(", heard")[0]
            print(f"waiting, for {said}", flush=True)
        time.sleep(2.0)
