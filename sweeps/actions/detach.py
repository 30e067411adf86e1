"""Implement --detach: the controller as a small Slurm job that submits a successor near its time limit."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mmkd.errors import UserError
from mmkd.lock import is_held, read_holder
from mmkd.provenance import SOURCE
from mmkd.rundir import Root
from mmkd.schema import explain
from slurm.accounting import NoAnswer, QueuedJob, scancel, squeue
from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from slurm.settings import SlurmSettings, seconds
from sweeps.controller.job_names import controller_job
from sweeps.resolve import refuse_without_slurm, slurm_backend
from sweeps.site_file import Site
from sweeps.snapshot_path import run_from

if TYPE_CHECKING:
    from sweeps.resolve import Launch

HANDOVER_SECONDS = 300
"""A controller hands over this long before its time limit, or at half the limit if that is later."""
RETRY_SECONDS = 10.0
"""Seconds between attempts to submit a successor."""
FIRST, NEXT = "first", "next"
"""Values of the hidden option --detached: the controller that --detach submitted, and its successors."""
FOR_HERE = frozenset({"--detach", "--dry-run", "--probe"})
"""Command-line options that the controller's job does not get."""
OF_TRIALS = frozenset({"exclusive", "gres", "tmp"})
"""Options of sbatch in `extra` that request resources of a node, which a controller does not need."""


def controller_jobs(root: Root, name: str) -> list[QueuedJob]:
    """Return pending and running jobs of a study's detached controller.

    Raises:
        NoAnswer: Slurm does not answer.
    """
    if not root.controller_script(name).exists():
        return []
    return [job for job in squeue() if job.name == controller_job(root, name) and not job.ended]


def controller_settings(site: Site) -> SlurmSettings:
    """Return the settings of the controller's job: the site's `[detach]` without a GPU.

    Account, partition and QOS default to the trials'. It runs outside the container (`prefix`) because it needs sbatch.

    Raises:
        UserError: a value that sbatch would refuse.
    """
    shared = site.slurm.model_dump(include={"partition", "account", "qos", "setup"})
    own = site.detach.model_dump(exclude_none=True)
    extra = {name: value for name, value in site.slurm.extra.items() if name not in OF_TRIALS}
    try:
        settings = SlurmSettings(**{**shared, **own}, gpus="0", python=sys.executable, extra=extra)
    except ValidationError as error:
        raise UserError(explain(error, "site file, [detach]")) from None
    return settings.model_copy(update={"grace": max(1, min(HANDOVER_SECONDS, seconds(settings.time) // 2))})


def controller_of(made: Launch, arguments: list[str], after: str = "") -> Job:
    """Return the job that runs the launch command `arguments`, if given `after` another job has ended."""
    code = made.code if made.code is not None else SOURCE.parent
    command = (sys.executable, str(code / "sweeps" / "launch.py"), *arguments)
    log = made.root.controller_log(made.name)
    path = {} if made.code is None else run_from(made.code)
    environment = {**path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(made.site.detach.cpus)}
    return Job(controller_job(made.root, made.name), command, log, environment, after=after, requeue=True)


def controller_script(made: Launch, options: argparse.Namespace) -> str:
    """Return the sbatch script that --detach would submit."""
    return slurm_backend(controller_settings(made.site)).script(controller_of(made, absolute(options)))


def absolute(options: argparse.Namespace) -> list[str]:
    """Return a detached controller's command line: this one with absolute paths, without `FOR_HERE`."""
    placed = {"--cluster": "slurm", "--root": str(Root.at(options.root).path)}
    for name in ("study", "data", "site", "journal"):
        value = getattr(options, name)
        if value is not None:
            named = name == "study" and not str(value).endswith(".toml")
            placed[f"--{name}"] = str(value) if named else str(Path(value).absolute())
    others, words = [], iter(options.arguments)
    for word in words:
        if word in placed:
            next(words)  # its value
        elif word.partition("=")[0] not in placed and word not in FOR_HERE:
            others.append(word)
    return [*(word for pair in placed.items() for word in pair), *others, "--detached", FIRST]


def detach(made: Launch, options: argparse.Namespace) -> int:
    """Submit the controller's job and return the exit code.

    Raises:
        UserError: a controller already works on the study, or Slurm refuses the job.
        ConnectionError: Slurm does not answer, or accepts no job now.
    """
    refuse_second(made)
    made.record(options.max_gpu_hours)
    job = controller_of(made, absolute(options))
    try:
        identifier = slurm_backend(controller_settings(made.site)).submit(job).id
    except SubmissionRefused as refusal:
        raise UserError(f"--detach: {refusal} (set the controller's resources in [detach] of the site file)") from None
    except SubmissionDelayed as delay:
        unsure = "" if delay.certain else "; use --status to see whether there is a job"
        raise ConnectionError(f"--detach: Slurm says {delay}{unsure}") from None
    again = f"--study {made.name} --root {made.root.path}"
    print(f"\ndetached: job {identifier} ({job.name}) is the controller; you can log out")
    print(f"log              {job.log}")
    print(f"status           mmkd status {again}")
    print(f"live view        mmkd monitor {again}")
    print(f"end all jobs     mmkd launch {again} --cancel")
    return 0


def refuse_second(made: Launch) -> None:
    """Refuse a second controller of the study.

    Raises:
        UserError: one exists; names the job's id, or host and process.
        ConnectionError: Slurm does not answer.
    """
    try:
        there = controller_jobs(made.root, made.name)
    except NoAnswer as error:
        refuse_without_slurm("--detach", error)
    if there:
        raise UserError(
            f"--detach: job {there[0].id} ({there[0].state}) is already this study's controller; --status shows it, "
            f"--cancel ends it"
        )
    for row in made.rows:
        holder = read_holder(row.directory.lock)
        if holder is not None and holder.purpose == made.name and is_held(row.directory.lock):
            raise UserError(
                f"--detach: a controller is running: {holder}; end it first (kill -USR1 leaves its jobs running)"
            )


def begin() -> None:
    """Print where a detached controller runs. It follows the rows of a dead predecessor until it can take them over."""
    number, restart = os.environ.get("SLURM_JOB_ID", "?"), os.environ.get("SLURM_RESTART_COUNT", "0")
    print(f"controller: job {number}, start {int(restart) + 1}, on {socket.gethostname()}, {time.ctime()}", flush=True)


def continues(options: argparse.Namespace) -> bool:
    """True if this controller continues for another one, so that one-time requests are already done."""
    return options.detached == NEXT or bool(options.detached and os.environ.get("SLURM_RESTART_COUNT", "0") != "0")


def hand_over(made: Launch, options: argparse.Namespace) -> int:
    """Submit the successor of this controller, unless one is pending, and return the exit code."""
    arguments = options.arguments[: options.arguments.index("--detached")]
    own = os.environ.get("SLURM_JOB_ID", "")
    job = controller_of(made, [*arguments, "--detached", NEXT], after=own)
    backend = slurm_backend(controller_settings(made.site))
    while True:
        try:
            others = [other for other in controller_jobs(made.root, made.name) if other.id != own]
            identifier = others[0].id if others else backend.submit(job).id
        except (NoAnswer, SubmissionDelayed) as delay:
            print(f"no successor yet: Slurm says {' '.join(str(delay).split())}", flush=True)
            time.sleep(RETRY_SECONDS)
        except SubmissionRefused as refusal:
            print(f"error: no successor: {refusal}; run the launch command again to resume", file=sys.stderr)
            return 1
        else:
            print(f"job {identifier} is the next controller", flush=True)
            return 0


def dismiss_successors(made: Launch) -> None:
    """Cancel pending successors when nothing is left to do."""
    own = os.environ.get("SLURM_JOB_ID", "")
    try:
        scancel([job.id for job in controller_jobs(made.root, made.name) if job.id != own])
    except NoAnswer as error:
        print(f"a pending controller was not cancelled: Slurm says {' '.join(str(error).split())}")
