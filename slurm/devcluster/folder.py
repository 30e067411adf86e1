"""A cluster's folder: its default path, ownership checks and lock."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm.devcluster.options import Refused

LONGEST_FOLDER = 60
"""Characters of its path: Unix sockets lie in it, and their paths are limited to 107 bytes."""


def default_folder() -> Path:
    """The default folder, one per user."""
    return Path(tempfile.gettempdir()) / f"mmkd-devcluster-{os.getuid()}"


def claim_folder(folder: Path) -> None:
    """Create `folder` for its owner alone, or accept it if it is empty or a cluster's.

    Raises:
        Refused: it belongs to or is open to others, holds other files, or its path is too long.
    """
    if len(str(folder)) > LONGEST_FOLDER:
        raise Refused(f"--folder {folder}: longer than {LONGEST_FOLDER} characters, too long for Unix sockets")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Refused(f"--folder {folder}: {error.strerror}; choose another") from None
    if folder.is_symlink() or found.st_uid != os.geteuid():
        raise Refused(f"--folder {folder}: not a directory of yours; choose another")
    if found.st_mode & 0o077:
        raise Refused(f"--folder {folder}: others may enter it; chmod 700 it, or choose another")
    if any(folder.iterdir()) and not (folder / "lock").exists():
        raise Refused(f"--folder {folder}: holds files that are not a cluster's; choose an empty folder")


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Serialize `up` and `down` in `folder`; others wait."""
    # The daemons do not inherit the lock: Python's files are close-on-exec.
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
