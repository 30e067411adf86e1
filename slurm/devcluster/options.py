"""What a development cluster is asked to be, and how it says no."""

from __future__ import annotations

from dataclasses import asdict, dataclass


class Refused(Exception):
    """What the user can mend, in one line; nothing was started. The command exits with code 2."""


class ClusterError(Exception):
    """A daemon or a command of Slurm failed; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Options:
    """The cluster: `nodes` alike nodes, two partitions over them, `gpu` (default) and `urgent`, which preempts it.

    `memory_per_node` is in MB, and enforced; a job that asks for none gets its cores' share. `grace` is the seconds
    between a preemption's SIGTERM and its SIGKILL (the partition's GraceTime; 0 leaves Slurm's KillWait, 5 s).
    `max_submit` limits a user's jobs in the queue (the QOS's MaxSubmitJobsPerUser). All may exceed what the
    machine has: Slurm is told not to look.

    Without `cgroup` memory is polled every second, and a job beyond it ends as FAILED; with it the kernel kills, and
    Slurm says OUT_OF_MEMORY, as real sites do. It needs the memory hierarchy of cgroup v1, writable.
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
        least = {
            "nodes": 1,
            "gpus_per_node": 0,
            "cpus_per_node": 1,
            "memory_per_node": 100,
            "grace": 0,
            "max_submit": 1,
        }
        for name, value in asdict(self).items():
            if name in least and value is not None and value < least[name]:
                raise Refused(f"--{name.replace('_', '-')} {value}: must be {least[name]} or more")
        if self.max_submit is not None and not self.accounting:
            raise Refused("--max-submit needs accounting: leave --no-accounting out")

    def as_words(self) -> str:
        """What the command line of `up` says of it: the options that are not the default, or that all are."""
        switches = {"accounting": "--no-accounting", "cgroup": "--cgroup"}
        default = asdict(Options())
        changed = {name: value for name, value in asdict(self).items() if value != default[name]}
        words = [switches.get(name) or f"--{name.replace('_', '-')} {value}" for name, value in changed.items()]
        return " ".join(words) or "the default options"

    @property
    def node_names(self) -> list[str]:
        """n1, n2, …"""
        return [f"n{number}" for number in range(1, self.nodes + 1)]
