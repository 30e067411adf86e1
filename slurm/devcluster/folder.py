"""The folder that a cluster lives in: whose it is, and one change at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm.devcluster.options import Refused

LONGEST_FOLDER = 60
"""Unix sockets lie under the folder, and their paths may have 107 bytes."""


def default_folder() -> Path:
    """Where a cluster lies unless told otherwise: one a user."""
    return Path(tempfile.gettempdir()) / f"mmkd-devcluster-{os.getuid()}"


def claim(folder: Path) -> None:
    """Make `folder` for its owner alone, or accept it if it is a cluster's or empty.

    Raises:
        Refused: it is somebody else's, open to others, holds other files, or its path is too long.
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
def locked(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time in `folder`; others wait."""
    # The daemons do not inherit the lock: Python's files are close-on-exec.
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
