"""Resources and setup of each Slurm job, from a site file or the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

MEGABYTES = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)B?", re.IGNORECASE | re.ASCII)
_GPUS = re.compile(
    r"(--gres=|--gpus-per-node=|--gpus=|-G *)?((?:[A-Za-z0-9_.-]+[:/]){0,2}\d+|(?:gpu|shard):\d+)", re.ASCII
)
"""The option of sbatch, or none, and what is requested."""
_TIME = re.compile(r"\d+|(\d+-)?\d+(:\d{1,2}){0,2}", re.ASCII)

UNCHANGED = ("partition", "account", "qos", "constraint", "nodelist")
"""Fields that sbatch gets as they are, under their own name."""

_ONE_PROCESS = "each trial is one process in one job"
_NO_SUBMISSION = "sbatch would not just submit the script and print the job's id"
DECIDED = {
    **dict.fromkeys((*UNCHANGED, "exclude", "time"), "it has its own key"),
    **dict.fromkeys(("mem", "mem-per-gpu"), "mem decides it"),
    "mem-per-cpu": "mem_per_cpu decides it",
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus decides it"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "gpus decides it"),
    **dict.fromkeys(("error", "job-name", "open-mode", "output"), "mmkd finds its jobs and their logs by it"),
    **dict.fromkeys(("dependency", "no-requeue", "requeue"), "the controller decides what runs, when and how often"),
    **dict.fromkeys(("array", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"), _ONE_PROCESS),
    **dict.fromkeys(("help", "parsable", "test-only", "usage", "version", "wait", "wrap"), _NO_SUBMISSION),
    "clusters": "the controller watches the cluster that it runs on",
    "signal": "grace decides it",
}
"""Options of sbatch that `extra` may not contain, with the reason."""


def megabytes(text: str) -> float:
    """Convert an amount of memory in Slurm's format (16G, 4096, 500M) to megabytes.

    Raises:
        ValueError: it has another format.
    """
    found = _MEMORY.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory; write 16G or 4096M")
    return float(found[1]) * MEGABYTES[found[2].upper()]


def seconds(text: str) -> int:
    """Convert a time limit in Slurm's format to seconds: minutes, minutes:seconds, hours:minutes:seconds, days-hours...

    Raises:
        ValueError: it has another format.
    """
    if not _TIME.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a time limit; write minutes, hours:minutes:seconds or days-hours")
    days, dash, rest = text.strip().rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        parts += [0] * (3 - len(parts))  # hours come first
    elif len(parts) < 3:
        parts = [0, *parts, *[0] * (2 - len(parts))]  # minutes do
    return int(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]


def _as_memory(value: object) -> object:
    """Accept numbers of a TOML file like their digits."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f'{value!r} is not an amount of memory; write "16G" or "4096M"')
    text = str(value).strip()
    if 0 < megabytes(text) < 1000 and not text[-1].isalpha():  # 0 means all memory of a node
        raise ValueError(f'{text} would be {text} megabytes; write "{text}G", or "{text}M" if you mean that')
    return text


def _as_time(value: object) -> str:
    seconds(str(value))
    return str(value).strip()


def _as_name(value: str) -> str | None:
    if not value.isprintable():
        raise ValueError(f"{value!r}: a single line of printable characters")
    if " " in value:
        raise ValueError(f"{value!r}: a name, or several with commas and no space")
    return value or None


def _as_memory_or_none(value: object) -> object:
    return NO_MEMORY if str(value).strip().lower() == NO_MEMORY else _as_memory(value)


def _as_node(value: str | None) -> str | None:
    """Refuse several nodes: to sbatch, they are nodes that each job needs all of."""
    if value and re.search(r"[,\[]", value):
        raise ValueError(
            f"{value!r}: Slurm would give each job all of these nodes; name one node, or use the option that keeps to "
            f"some: --slurm.exclude with the other nodes, --slurm.constraint, or a reservation in --slurm.extra"
        )
    return value


NO_MEMORY = "none"
"""The value of `mem` for sites that allow no request for memory."""
MemoryOrNone = Annotated[str, BeforeValidator(_as_memory_or_none)]
"""`Memory`, or `NO_MEMORY`."""
Memory = Annotated[str, BeforeValidator(_as_memory)]
"""See `megabytes`. Without a unit, a number below 1000 is refused: 16 is meant as 16G, and Slurm reads 16 MB."""
TimeLimit = Annotated[str, BeforeValidator(_as_time)]
"""See `seconds`; a number in a TOML file is in minutes."""
Name = Annotated[str, AfterValidator(_as_name)]
"""Name of a partition or the like, or several with commas; "" means none."""


def _field(default: Any, description: str) -> Any:
    return Field(default=default, description=description)


class SlurmSettings(BaseModel):
    """Requests of each trial's job. Each field is an option `--slurm.NAME` and a key of `[slurm]` in a site file."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    partition: Name | None = _field(None, "partition, or several separated by commas, as sinfo shows them")
    account: Name | None = _field(None, "account to charge")
    qos: Name | None = _field(None, "quality of service (QOS)")
    gpus: str = _field(
        "1",
        "number of GPUs (0: none), type:number (h200:1), a gres as your site writes it (gpu:volta:1, gpu:1g.10gb:1, "
        "shard:2), or an option of sbatch (-G 1, --gpus=h200:1)",
    )
    cpus: Annotated[int, Field(ge=1, description="cores of a job, and threads of a trial")] = 4
    mem: MemoryOrNone = _field("16G", "memory of a job; write none if your site accepts no request for memory")
    mem_per_cpu: Memory | None = _field(
        None, "memory of each core of a job (--mem-per-cpu), for sites that require it; replaces mem"
    )
    mem_limit: Memory | None = _field(
        None, "upper limit of memory for retries of jobs that ran out of it (default: four times mem)"
    )
    time: TimeLimit = _field("4:00:00", "time limit of one attempt (the next one resumes from the checkpoint)")
    constraint: str | None = _field(None, "features that nodes must have")
    nodelist: Annotated[Name | None, AfterValidator(_as_node)] = _field(None, "the node to use")
    exclude: Name | None = _field(None, "nodes to avoid")
    setup: tuple[str, ...] = _field(
        (),
        "shell line to run before the trial (module load, conda activate); must succeed; may be repeated; "
        "replaces the site file's lines",
    )
    prefix: str = _field("", "text before the trial's command, such as apptainer exec --nv image.sif")
    python: str = _field(sys.executable, "Python interpreter on the nodes (in the container, if there is one)")
    extra: dict[str, str] = _field(
        {},
        "any other option of sbatch, as NAME=VALUE, or NAME= for one without a value (exclusive=); may be "
        "repeated; adds to the site file's",
    )
    grace: Annotated[
        int, Field(ge=1, description="seconds before the time limit at which a trial writes its last checkpoint")
    ] = 90
    workers: Annotated[
        int,
        Field(
            ge=0,
            description="jobs that each work through many trials (mmkd.worker) instead of one job per trial; 0: none",
        ),
    ] = 0
    trials_per_worker: Annotated[
        int, Field(ge=1, description="trials at once in such a job, which share its GPUs, cores and memory")
    ] = 1
    worker_idle: Annotated[float, Field(gt=0, description="seconds without a trial after which such a job ends")] = (
        600.0
    )
    poll: Annotated[float, Field(gt=0, description="seconds between queries of Slurm; each covers all jobs")] = 30.0

    @field_validator("gpus", mode="before")
    @classmethod
    def _is_gpus(cls, value: object) -> str:
        if not _GPUS.fullmatch(str(value).strip()):
            raise ValueError(
                f"{value!r}: write a number, type:number (h200:1), a gres (gpu:volta:1, shard:2), or sbatch's option "
                f"(--gpus=h200:1, -G 1, --gres=gpu:1)"
            )
        return str(value).strip()

    @field_validator("partition", mode="before")
    @classmethod
    def _is_one_name(cls, value: object) -> object:
        """Accept several partitions as a list; Slurm takes the one that can start the job first."""
        return ",".join(map(str, value)) if isinstance(value, list) else value

    @field_validator("setup", mode="before")
    @classmethod
    def _is_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("constraint", "prefix", "python")
    @classmethod
    def _is_one_line(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError(f"{value!r}: a single line of printable characters")
        return value

    @field_validator("extra", mode="before")
    @classmethod
    def _are_words(cls, value: object) -> object:
        """Accept `exclusive = true` and `nice = 100`, as one writes these in TOML."""
        if not isinstance(value, dict):
            return value
        return {
            name: "" if word is True else str(word) if isinstance(word, int) and word is not False else word
            for name, word in value.items()
        }

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: dict[str, str]) -> dict[str, str]:
        for name, argument in value.items():
            if not re.fullmatch(r"[a-z][a-z-]*", name) or not argument.isprintable():
                raise ValueError(f"{name}={argument!r}: the option's long name without dashes, = and one line")
            if name in DECIDED:
                raise ValueError(f"{name} cannot be given: {DECIDED[name]}")
        return value

    @model_validator(mode="after")
    def _asks_for_gpus_once(self) -> SlurmSettings:
        """Allow a `gres` other than GPUs, such as a local disk; sbatch accepts the option once."""
        other = self.extra.get("gres", "")
        if re.search(r"(^|,)gpu\b", other) or (other and "gres" in self.gpu_options()):
            raise ValueError(
                f"extra: gres={other}: gpus decides it; beside another gres write gpus as type:number (h200:1)"
            )
        return self

    @model_validator(mode="after")
    def _has_consistent_limits(self) -> SlurmSettings:
        if self.mem_limit is not None and self._usual_memory > megabytes(self.mem_limit):
            key = "mem" if self.mem_per_cpu is None else f"{self.cpus} cpus times mem_per_cpu"
            raise ValueError(
                f"mem_limit {self.mem_limit} is below {key} {self.mem_per_cpu or self.mem}: raise one or lower the "
                f"other"
            )
        if self.mem_per_cpu is not None and "mem" in self.model_fields_set and self.mem != NO_MEMORY:
            raise ValueError(f"mem {self.mem} and mem_per_cpu {self.mem_per_cpu}: give one of them")
        if 0 < seconds(self.time) <= self.grace:  # 0 means no limit
            raise ValueError(f"time {self.time} is not above the grace of {self.grace} s: raise time or lower grace")
        return self

    def after(self, failures: Sequence[str]) -> SlurmSettings:
        """The settings of an attempt after earlier ones that failed in these classes."""
        return self

    @property
    def gpu_count(self) -> int:
        """GPUs per job."""
        option, value = self._gpu_request
        return 1 if option == "shard" else int(re.split("[:/]", value)[-1])

    @property
    def _gpu_request(self) -> tuple[str, str]:
        """The option of sbatch, or what stands for it, and its value."""
        found = _GPUS.fullmatch(self.gpus)
        assert found is not None
        option, value = (found[1] or "").strip("-= "), found[2]
        first = value.partition(":")[0]
        return (first if first in ("gpu", "shard") and not option else option), value

    def gpu_options(self) -> dict[str, str]:
        """The sbatch option that requests the GPUs."""
        option, value = self._gpu_request
        if self.gpu_count == 0:
            return {}
        return {{"gpu": "gres", "shard": "gres", "G": "gpus", "": "gpus-per-node"}.get(option, option): value}

    @property
    def _usual_memory(self) -> float:
        """Megabytes of a job; 0.0 if none are requested."""
        if self.mem_per_cpu is not None:
            return self.cpus * megabytes(self.mem_per_cpu)
        return 0.0 if self.mem == NO_MEMORY else megabytes(self.mem)

    def memory_options(self, factor: float) -> dict[str, str]:
        """The sbatch option that requests `factor` times the usual memory, within the limit; empty if `mem` is none."""
        if self.mem_per_cpu is None and self.mem == NO_MEMORY:
            return {}
        usual = self._usual_memory
        limit = megabytes(self.mem_limit) if self.mem_limit else 4 * usual
        granted = min(usual * factor, limit)
        if self.mem_per_cpu is not None:
            return {"mem-per-cpu": f"{granted / self.cpus:.0f}M"}
        return {"mem": f"{granted:.0f}M"}

    def describe_request(self) -> str:
        """The resources of a job in words, with those marked that nobody chose."""
        memory = "mem_per_cpu" if self.mem_per_cpu is not None else "mem"
        names = (name for name in ("cpus", memory, "gpus") if getattr(self, name) not in ("0", NO_MEMORY))
        chosen = self.model_fields_set
        return ", ".join(f"{n} = {getattr(self, n)}{'' if n in chosen else ', the default'}" for n in names)
