"""Take the locks of rows, or wait until they are free."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mmkd.errors import UserError
from mmkd.lock import FileLock, LockHeld
from mmkd.rundir import RowDir

LOOK_SECONDS = 2.0
"""Between two looks at a lock that somebody holds."""


@dataclass
class RowLocks:
    """Locks of rows: those that we hold, and the holders of the others."""

    held: dict[RowDir, FileLock] = field(default_factory=dict)
    refused: dict[RowDir, LockHeld] = field(default_factory=dict)

    def renew(self) -> None:
        """Renew the heartbeats, in work that takes minutes.

        Raises:
            LockLost: another process has taken a row over.
        """
        for lock in self.held.values():
            lock.renew()


def try_lock(lock: FileLock) -> LockHeld | None:
    """Take a lock, or return who holds it."""
    try:
        lock.acquire()
    except LockHeld as held:
        return held
    return None


@contextmanager
def take_rows(
    rows: Iterable[RowDir], option: str = "", known: MutableMapping[RowDir, FileLock] | None = None
) -> Iterator[RowLocks]:
    """Take the locks of rows that nobody holds, and release them in the end.

    Args:
        rows: the rows.
        option: of a command that needs all of them: waits until it is certain whether a holder on another host lives.
        known: the lock objects of earlier calls, which remember the heartbeats that they have seen.

    Raises:
        UserError: a controller is at work on a row, and the command's `option` needs all of them.
    """
    locks, known = RowLocks(), {} if known is None else known
    try:
        for row in rows:
            lock = known.setdefault(row, FileLock(row.lock))
            try:
                _acquire(lock, wait=bool(option))
            except LockHeld as held:
                if option:
                    message = f"{option}: a controller is at work: {held}; wait for it, or --cancel it"
                    raise UserError(message) from None
                locks.refused[row] = held
            else:
                locks.held[row] = lock
        yield locks
    finally:
        for lock in locks.held.values():
            lock.release()


def _acquire(lock: FileLock, *, wait: bool) -> None:
    """Take a lock. If asked to `wait`, first find out whether a holder on another host lives.

    Raises:
        LockHeld: it does, or nobody waited to find out.
    """
    said = False
    while True:
        try:
            return lock.acquire()
        except LockHeld as held:
            if held.is_certain or not wait:
                raise
            if not said:
                print(f"waiting: {held}", flush=True)
            said = True
            time.sleep(LOOK_SECONDS)
