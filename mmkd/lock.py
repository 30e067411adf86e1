"""A lock that dies with its holder, and names it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mmkd.files import read_json

STALE_SECONDS = 180.0
"""A holder on another host whose heartbeat has not changed for this long is taken for dead."""


class LockHeld(Exception):
    """Somebody else holds the lock; the message says who.

    `is_certain` is False for a holder on another host of which nothing has been heard yet: it may be dead.
    """

    def __init__(self, message: str, *, is_certain: bool = True) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class LockLost(Exception):
    """The lock was taken over while we believed to hold it: stop writing."""


class FileLock:
    """One process at a time may hold the lock at `path`.

    The kernel's `flock` decides on one host, and wherever the file system carries it between hosts; it goes with
    the process, however that died. For file systems that keep it local the file names host, process and heartbeat. A
    holder on another host is respected until its heartbeat has not changed for `stale` seconds, as this object has seen
    in repeated calls of `acquire`: the clocks of two hosts may differ, so that a time in the file says nothing.

    Args:
        path: the lock's file.
        purpose: the reason to hold it, such as a study; written into the file.
        stale: see above.
    """

    def __init__(self, path: Path, purpose: str = "", stale: float = STALE_SECONDS) -> None:
        self.path, self.purpose, self.stale = path, purpose, stale
        self._token = secrets.token_hex(8)
        self._descriptor: int | None = None
        self._beat: tuple[Any, Any] | None = None
        """Token and heartbeat of the holder, as read last; first read so at the monotonic time `_since`."""
        self._since = 0.0
        self._has_heard = False

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockHeld: naming the host and the process that hold it.
        """
        descriptor = self._open_locked()
        try:
            holder = self._read(descriptor)
            if holder.get("host") not in (None, socket.gethostname()):
                self._refuse_living(holder)
            self._descriptor = descriptor
            self._write()
        except BaseException:
            self._descriptor = None
            os.close(descriptor)
            raise

    def _refuse_living(self, holder: dict[str, Any]) -> None:
        """Raise unless the heartbeat of a holder on another host has not changed for long enough."""
        beat, now = (holder.get("token"), holder.get("heartbeat")), time.monotonic()
        if beat != self._beat:
            self._has_heard = self._beat is not None
            self._beat, self._since = beat, now
        silent = now - self._since
        if silent < self.stale:
            raise LockHeld(
                f"{self.path} is held by {_describe(holder)}, without a heartbeat for {silent:.0f} s "
                f"(taken over after {self.stale:.0f} s)",
                is_certain=self._has_heard,
            )

    def renew(self) -> None:
        """Write a fresh heartbeat.

        Raises:
            LockLost: see `check`.
        """
        self.check()
        self._write()

    def _write(self) -> None:
        assert self._descriptor is not None
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "heartbeat": time.time()}
        text = json.dumps({**facts, "purpose": self.purpose})
        os.pwrite(self._descriptor, text.encode().ljust(512), 0)

    def check(self) -> None:
        """Make sure that the lock is still ours; call it before each write that it protects.

        Raises:
            LockLost: it was removed or taken over.
        """
        if not self._is_ours():
            raise LockLost(f"{self.path} is no longer ours: another process has taken it over")

    def release(self) -> None:
        """Give the lock back and remove its file; a second call does nothing."""
        if self._descriptor is None:
            return
        if self._is_ours():
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _open_locked(self) -> int:
        """A descriptor of the file that stands at `path` now, with flock held."""
        while True:
            # A link in its place would have us write over somebody's file: $TMPDIR may be shared.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._read(descriptor)
                os.close(descriptor)
                raise LockHeld(f"{self.path} is held by {_describe(holder)}") from None
            except BaseException:
                os.close(descriptor)
                raise
            # The former holder may have removed the file between our open and our flock: then look again.
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)

    def _is_ours(self) -> bool:
        held = self._descriptor
        return held is not None and self._is_current(held) and self._read(held).get("token") == self._token

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _read(descriptor: int) -> dict[str, Any]:
        """The holder as written."""
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
        except ValueError:
            holder = {}
        return holder if isinstance(holder, dict) else {}


def is_held(path: Path) -> bool:
    """True if a living process of this host (or of any, where the file system carries flock) holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@dataclass(frozen=True)
class Holder:
    """The process that wrote a lock's file last, and why.

    `age` is the seconds since its last heartbeat by this host's clock. For a holder on another host, whose clock may
    differ, it is a hint for people: no decision depends on it.
    """

    host: str
    pid: int
    age: float
    purpose: str = ""

    @property
    def alive(self) -> bool:
        """True if it lives, by its process; of another host's, True if it seems so."""
        if self.host != socket.gethostname():
            return self.age < STALE_SECONDS
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_holder(path: Path) -> Holder | None:
    """The last holder of a lock that was not given back. To take the lock, even shared, could refuse a launch."""
    facts = read_json(path) or {}
    try:
        age = max(time.time() - path.stat().st_mtime, 0.0)
        return Holder(str(facts["host"]), int(facts["pid"]), age, str(facts.get("purpose", "")))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"
