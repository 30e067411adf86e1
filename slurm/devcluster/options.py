"""Options of a development cluster, and its exceptions."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
    Slurm is told not to check.

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
