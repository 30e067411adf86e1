"""Which results can be believed, and what becomes of those that cannot."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from mmkd.files import remove_leftovers
from mmkd.result_file import Result, ResultError, check_result, read_result
from mmkd.rundir import TrialDir

SET_ASIDE = "result.h5.unreadable"
"""What a result is called that could not be believed, when its trial runs again."""


def clean_up(directory: TrialDir) -> None:
    """Remove what killed processes left in a settled trial's directory: nothing writes there any more."""
    remove_leftovers(directory.path)
    remove_leftovers(directory.attempts)
    directory.lock.unlink(missing_ok=True)
    if directory.result.exists():
        directory.checkpoint.unlink(missing_ok=True)


def usable_result(directory: TrialDir) -> Result | None:
    """The result of a trial; one that cannot be read is set aside, so that the trial runs again."""
    try:
        return read_result(directory.result, predictions=False)
    except FileNotFoundError:
        return None
    except ResultError as error:
        set_aside(directory, str(error))
        return None


def set_aside(directory: TrialDir, why: str) -> None:
    """Keep a result that cannot be believed under another name, so that its trial runs again."""
    with suppress(FileNotFoundError):  # another controller, that shares this teacher, was faster
        os.replace(directory.result, directory.path / SET_ASIDE)
    print(f"warning: {why}; set aside, the trial runs again")


def has_lost_result(directory: TrialDir, *, had: bool) -> bool:
    """Whether a trial that `had` a result has none now, or any trial a damaged one, which is set aside.

    Only the bytes are looked at: a relaunch asks this of every trial of a row.
    """
    try:
        check_result(directory.result)
    except FileNotFoundError:
        return had
    except ResultError as error:
        set_aside(directory, str(error))
        return True
    return False


def weights_checksum(directory: TrialDir) -> str:
    """SHA-256 of a trial's weights, as its result names them."""
    with directory.weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_its_weights(directory: TrialDir, result: Result) -> bool:
    """True if a trial's weights are those that its result names."""
    try:
        return weights_checksum(directory) == result.weights_sha256
    except FileNotFoundError:
        return not result.weights_sha256  # it diverged before its first epoch
