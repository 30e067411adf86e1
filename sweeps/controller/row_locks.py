"""Which controller works on a row: asked without a trace, or settled by taking the rows' locks."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from mmkd.files import read_json
from mmkd.lock import STALE_SECONDS, FileLock, LockHeld
from mmkd.rundir import RowDir


@dataclass(frozen=True)
class Holder:
    """Who wrote a lock's file last; `age` is the seconds since its last heartbeat."""

    host: str
    pid: int
    age: float

    @property
    def alive(self) -> bool:
        """Whether it lives, as far as can be told without touching the lock: its process, or on another host its
        heartbeat."""
        if self.host != socket.gethostname():
            return self.age < STALE_SECONDS
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def holder(lock: Path) -> Holder | None:
    """The last holder of a lock that was not given back; nothing is locked or written."""
    facts = read_json(lock) or {}
    try:
        age = time.time() - lock.stat().st_mtime
        return Holder(str(facts["host"]), int(facts["pid"]), age)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


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
