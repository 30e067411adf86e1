"""Options of a development cluster, its directory and its exceptions."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

LONGEST_PATH = 60
"""Characters of its path: Unix sockets are in it, and their paths are limited to 107 bytes."""


class Refused(Exception):
    """An error that the user can fix, in one line; nothing was started. The command exits with code 2."""


class ClusterError(Exception):
    """A daemon or a command of Slurm failed; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Options:
    """Size and limits: `nodes` equal nodes in two partitions, `gpu` (default) and `urgent`, which preempts it.

    `memory_per_node` is in MB and enforced; a job that requests none gets its cores' share. `grace` is the number of
    seconds between a preemption's SIGTERM and its SIGKILL (the partition's GraceTime; 0 leaves Slurm's KillWait, 5 s).
    `max_submit` limits a user's jobs in the queue (the QOS's MaxSubmitJobsPerUser). Sizes may exceed the machine's:
    Slurm is configured not to check.

    Without `cgroup`, memory is polled every second, and a job above its limit ends as FAILED. With it, the kernel kills
    the job and Slurm says OUT_OF_MEMORY, as on real sites; this needs a writable cgroup v1 memory hierarchy.
    """

    nodes: int = 4
    gpus_per_node: int = 2
    cpus_per_node: int = 4
    memory_per_node: int = 8000
    grace: int = 0
    max_submit: int | None = None
    accounting: bool = True
    cgroup: bool = False

    def __post_init__(self) -> None:
        least = {"nodes": 1, "cpus_per_node": 1, "memory_per_node": 100, "max_submit": 1}
        for name, value in asdict(self).items():
            if value is not None and value < least.get(name, 0):
                raise Refused(f"--{name.replace('_', '-')} {value}: must be {least.get(name, 0)} or more")
        if self.max_submit is not None and not self.accounting:
            raise Refused("--max-submit needs accounting: omit --no-accounting")

    def as_words(self) -> str:
        """The options that differ from the default, as typed after `up`."""
        switches = {"accounting": "--no-accounting", "cgroup": "--cgroup"}
        default = asdict(Options())
        changed = {name: value for name, value in asdict(self).items() if value != default[name]}
        words = [switches.get(name) or f"--{name.replace('_', '-')} {value}" for name, value in changed.items()]
        return " ".join(words) or "the default options"

    @property
    def node_names(self) -> list[str]:
        """n1, n2, …"""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


def default_directory() -> Path:
    """The default directory, one per user."""
    return Path(tempfile.gettempdir()) / f"mmkd-devcluster-{os.getuid()}"


def claim_directory(directory: Path) -> None:
    """Create `directory` for its owner alone, or accept it if it is empty or a cluster's.

    Raises:
        Refused: it belongs to or is open to others, holds other files, or its path is too long.
    """
    if len(str(directory)) > LONGEST_PATH:
        raise Refused(f"--folder {directory}: longer than {LONGEST_PATH} characters, too long for Unix sockets")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise Refused(f"--folder {directory}: {error.strerror}; choose another") from None
    if directory.is_symlink() or found.st_uid != os.geteuid():
        raise Refused(f"--folder {directory}: not a directory of yours; choose another")
    if found.st_mode & 0o077:
        raise Refused(f"--folder {directory}: others may enter it; chmod 700 it, or choose another")
    if any(directory.iterdir()) and not (directory / "lock").exists():
        raise Refused(f"--folder {directory}: holds files that are not a cluster's; choose an empty directory")


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Serialize `up` and `down` in `directory`; others wait."""
    # The daemons do not inherit the lock: Python's files are close-on-exec.
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
