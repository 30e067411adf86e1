"""Batched calls of squeue, sacct and scancel, in output formats that all versions of Slurm share."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slurm.settings import megabytes

FAILURES = {
    "BOOT_FAIL": "node_fail",
    "CANCELLED": "cancelled",
    "DEADLINE": "timeout",
    "FAILED": "error",
    "NODE_FAIL": "node_fail",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "TIMEOUT": "timeout",
}
"""Failure classes of terminal states; COMPLETED has none. With --no-requeue, PREEMPTED is terminal."""

TERMINAL = frozenset(FAILURES) | {"COMPLETED"}
"""Terminal states of our jobs."""

PATIENCE = 60.0
"""Time limit of a command of Slurm in seconds."""

KILLED_FOR_MEMORY = re.compile(
    r"^(slurmstepd|srun)\S* error: .*(oom.kill event|exceeded .*memory limit|Out Of Memory)",
    re.IGNORECASE | re.MULTILINE,
)
"""Slurm's messages in a job's output. The job's state may be FAILED, as only its step was killed."""

SRUN_ECHO = re.compile(r"srun: (error: \S+: tasks? .*: (Exited with exit code|Killed|Terminated)|Terminating )")
"""srun's message after any failed task; the reason is in another line."""

JOB_ID = re.compile(r"\d+(_\d+)?", re.ASCII)
"""A job, or a member of an array."""

IDS_A_CALL = 500
"""Ids per call of sacct or scancel, as the length of a command line is limited."""


class NoAnswer(Exception):
    """A command of Slurm is missing, failed or did not answer; the message holds its words.

    `of_no_cluster` is True if this machine has no Slurm, or no configuration of it, so that waiting is useless.
    """

    def __init__(self, message: str, *, of_no_cluster: bool = False) -> None:
        super().__init__(message)
        self.of_no_cluster = of_no_cluster or "config" in message.lower()


@dataclass(frozen=True)
class QueuedJob:
    """A line of squeue. Times have Slurm's format (1-02:03:04); `start` is an estimate for a pending job."""

    id: str
    name: str
    state: str
    reason: str
    node: str
    partition: str
    used: str
    left: str
    start: str

    @property
    def ended(self) -> bool:
        """True if the state is terminal."""
        return self.state in TERMINAL


@dataclass(frozen=True)
class EndedJob:
    """A job's accounting record."""

    id: str
    name: str
    state: str
    exit_code: str
    facts: Mapping[str, Any]


_QUEUE_FIELDS = {
    "id": "%i", "state": "%T", "reason": "%r", "node": "%N", "partition": "%P",
    "used": "%M", "left": "%L", "start": "%S", "name": "%j",
}  # fmt: skip
_ACCOUNT_FIELDS = ("JobID", "State", "ExitCode", "ElapsedRaw", "AllocTRES", "NodeList", "MaxRSS", "JobName")


def ask(*command: str, patience: float = PATIENCE) -> str:
    """The output of a command of Slurm, which may take `patience` seconds.

    Raises:
        NoAnswer: see there.
    """
    # A user's settings for interactive use (SQUEUE_PARTITION, SCANCEL_INTERACTIVE) would hide jobs or prompt.
    plain = {name: v for name, v in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, env=plain, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        missing = f"{command[0]}: no such command on this machine; is this a node of a Slurm cluster?"
        raise NoAnswer(missing, of_no_cluster=True) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} has not answered for {patience:.0f} s") from None
    except OSError as error:
        raise NoAnswer(f"{command[0]}: {error}") from None
    if done.returncode:
        raise NoAnswer(done.stderr.strip() or f"{command[0]} ended with code {done.returncode}")
    return done.stdout


def squeue(user: str | None = None, patience: float = PATIENCE) -> list[QueuedJob]:
    """All jobs of a user (default: ours), including hidden partitions and recently ended jobs.

    Args:
        user: name or number.
        patience: seconds to wait for an answer.

    Raises:
        NoAnswer: see there.
    """
    columns = "|".join(_QUEUE_FIELDS.values())
    # By number, as the name in the environment may be another user's (su, containers).
    text = ask(
        "squeue", "-h", "-r", "-a", "-t", "all", "-u", user or str(os.getuid()), "-o", columns, patience=patience
    )
    fields = (line.split("|", len(_QUEUE_FIELDS) - 1) for line in text.splitlines())
    # The name of a user's other job may contain a line break; what follows it is no job.
    whole = (values for values in fields if len(values) == len(_QUEUE_FIELDS))
    return [QueuedJob(**dict(zip(_QUEUE_FIELDS, values, strict=True))) for values in whole]


def script_of(identifier: str) -> str:
    """The path of a queued job's script; "" if Slurm does not show it.

    Raises:
        NoAnswer: see there.
    """
    return ask("squeue", "-h", "-a", "-t", "all", "-j", identifier, "-o", "%o").strip()


def sacct(ids: Collection[str]) -> dict[str, EndedJob]:
    """Accounting records by job id; unknown jobs are left out.

    Raises:
        NoAnswer: accounting is off, or does not answer.
    """
    found: dict[str, EndedJob] = {}
    # One word that is no id (of an earlier launch's local process) would make the whole call fail.
    for some in _in_parts(sorted(filter(JOB_ID.fullmatch, ids))):
        text = ask("sacct", "-P", "-n", "-j", ",".join(some), "-o", ",".join(_ACCOUNT_FIELDS))
        for job in _read_accounts(text):
            found[job.id] = job
    return found


def scancel(ids: Collection[str]) -> None:
    """Cancel jobs: Slurm sends SIGTERM, and SIGKILL some time later. Ended jobs are skipped.

    Raises:
        NoAnswer: see there.
    """
    for some in _in_parts(sorted(ids)):
        ask("scancel", "--quiet", *some)


def _in_parts(ids: list[str]) -> Iterator[list[str]]:
    return (ids[i : i + IDS_A_CALL] for i in range(0, len(ids), IDS_A_CALL))


def _read_accounts(text: str) -> Iterator[EndedJob]:
    """Parse sacct's lines: each job's own, with the memory of its steps (JobID.batch, JobID.0)."""
    memory: dict[str, float] = {}
    starved = set()
    jobs = []
    for line in text.splitlines():
        values = dict(zip(_ACCOUNT_FIELDS, line.split("|", len(_ACCOUNT_FIELDS) - 1), strict=False))
        if "JobName" not in values:
            continue
        identifier, _, step = values["JobID"].partition(".")
        if values["MaxRSS"]:
            memory[identifier] = max(memory.get(identifier, 0.0), megabytes(values["MaxRSS"]))
        if values["State"] == "OUT_OF_MEMORY":
            starved.add(identifier)
        if not step:
            jobs.append(values)
    for values in jobs:
        elapsed = int(values["ElapsedRaw"] or 0)
        gpus = re.search(r"gres/gpu=(\d+)", values["AllocTRES"])
        facts: dict[str, Any] = {"elapsed": elapsed, "gpu_seconds": elapsed * int(gpus[1]) if gpus else 0}
        if values["JobID"] in memory:
            facts["max_rss_mb"] = round(memory[values["JobID"]], 1)
        if values["NodeList"] not in ("", "None assigned"):
            facts["node"] = values["NodeList"]
        state = values["State"].split(" ")[0]  # "CANCELLED by 1000"
        if state == "FAILED" and values["JobID"] in starved:
            state = "OUT_OF_MEMORY"  # the step was killed, and the shell around it failed
        yield EndedJob(values["JobID"], values["JobName"], state, values["ExitCode"], facts | {"state": state})
