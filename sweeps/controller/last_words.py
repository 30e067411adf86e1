"""Read why a job ended from the end of its log."""

from __future__ import annotations

from pathlib import Path

from mmkd.failures import Failure
from mmkd.files import last_lines
from mmkd.rundir import TrialDir
from slurm.accounting import KILLED_FOR_MEMORY, SRUN_ECHO
from slurm.submission import SETUP_FAILED


def why_ended(directory: TrialDir, attempt: int, said: str, reported: str) -> str:
    """Return the class of a failure: the job's own (`said`) before the scheduler's (`reported`).

    A kill for lack of memory may begin with a SIGTERM, so that the job says preempted: the log decides.
    """
    if said in ("", Failure.PREEMPTED) and KILLED_FOR_MEMORY.search(last_words(directory.log(attempt), 20)):
        return Failure.OUT_OF_MEMORY
    return said if said in set(Failure) else reported or Failure.ERROR


def has_failed_setup(directory: TrialDir, attempt: int) -> bool:
    """True if the attempt's log says that a line of `setup` failed, so that its trial did not start."""
    return SETUP_FAILED in last_words(directory.log(attempt), 4)


def last_line(directory: TrialDir, attempt: int) -> str:
    """Return the last line that an attempt printed before srun's own message."""
    said = last_words(directory.log(attempt), 4).split("\n")
    return next((line for line in reversed(said) if not SRUN_ECHO.match(line)), said[-1])


def last_words(log: Path, count: int) -> str:
    """Return the last non-empty lines of a log, each cut to 300 characters, or that there are none."""
    try:
        lines = last_lines(log, 4096 * count)
    except FileNotFoundError:
        return "it left no log"
    said = [text[:300] for line in lines if (text := line.decode("utf-8", "replace").strip())]
    return "\n".join(said[-count:]) if said else "its log is empty"
