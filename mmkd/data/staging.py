"""Copy a data set to the node's own disk, for slow shared file systems."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mmkd.data.hdf5_format import DatasetInfo, read_info
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.lock import FileLock, LockHeld

STAGE = "MMKD_STAGE"
"""The environment variable that asks for it, with any value."""


def stage(info: DatasetInfo) -> DatasetInfo:
    """Describe the copy of the data set in `$TMPDIR`, made by the node's first trial; `info` if none is asked for.

    If the copy cannot be made or another trial is making it, the original is used.
    """
    if not os.environ.get(STAGE):
        return info
    copy = Path(tempfile.gettempdir()) / f"mmkd-{os.getuid()}-{info.fingerprint[:16]}.h5"
    try:
        if not _is_ours(copy, info):
            with FileLock(copy.with_suffix(".lock")):
                write_atomically(copy, lambda path: shutil.copyfile(info.path, path))
        return read_info(copy)
    except (OSError, LockHeld, UserError) as error:
        print(f"warning: not staged, the data are read where they are: {error}", file=sys.stderr, flush=True)
        return info


def _is_ours(copy: Path, info: DatasetInfo) -> bool:
    """True if a whole copy exists and this user made it: its name can be guessed, and $TMPDIR may be shared."""
    try:
        found = copy.lstat()
    except FileNotFoundError:
        return False
    if found.st_uid != os.getuid():
        raise UserError(f"{copy}: belongs to another user")
    return found.st_size == info.path.stat().st_size and replace(read_info(copy), path=info.path) == info
