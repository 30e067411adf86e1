"""The controller as a small Slurm job: the same command, and near its time limit a successor that goes on."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mmkd.config import explain
from mmkd.errors import UserError
from mmkd.lock import STALE_SECONDS
from mmkd.provenance import SOURCE
from mmkd.rundir import Root
from slurm.accounting import NoAnswer, QueuedJob, scancel, squeue
from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from slurm.settings import SlurmSettings, seconds
from sweeps.controller.retries import controller_job
from sweeps.controller.row_locks import take_rows, wait_for_rows
from sweeps.resolve import refuse_without_slurm, slurm_backend
from sweeps.site_file import Site
from sweeps.snapshot_path import run_from

if TYPE_CHECKING:
    from sweeps.resolve import Launch

HANDOVER_SECONDS = 300
"""So long before its time limit a controller hands over; half the limit where that is shorter."""
RETRY_SECONDS = 10.0
"""Between two tries to submit a successor that has to wait."""
FIRST, NEXT = "first", "next"
"""Values of the hidden option --detached: the controller that --detach submitted, and those that go on for it."""
FOR_HERE = frozenset({"--detach", "--dry-run", "--probe"})
"""Options of the command line that the controller's own job is not given."""
OF_TRIALS = frozenset({"exclusive", "gres", "tmp"})
"""Options of sbatch in `extra` that ask for a node's resources, of which a controller needs none."""


def controller_jobs(root: Root, name: str) -> list[QueuedJob]:
    """Jobs of a study's detached controller that wait or run.

    Raises:
        NoAnswer: Slurm is asked, and does not answer.
    """
    if not was_detached(root, name):
        return []
    return [job for job in squeue() if job.name == controller_job(root, name) and not job.ended]


def was_detached(root: Root, name: str) -> bool:
    """Whether a controller of the study was ever submitted as a job."""
    return root.controller_log(name).with_suffix(".sbatch").exists()


def controller_settings(site: Site) -> SlurmSettings:
    """What the controller's job asks for: the site's `[detach]`, no GPU, and the trials' account and partition where
    that names none. It runs outside of a container (`prefix`), for it needs sbatch.

    Raises:
        UserError: a value that sbatch would not take.
    """
    own, slurm = site.detach, site.slurm
    try:
        settings = SlurmSettings(
            partition=own.partition or slurm.partition,
            account=own.account or slurm.account,
            qos=own.qos or slurm.qos,
            gpus="0",
            cpus=own.cpus,
            mem=own.mem,
            time=own.time,
            setup=slurm.setup,
            python=sys.executable,
            extra={name: value for name, value in slurm.extra.items() if name not in OF_TRIALS},
        )
    except ValidationError as error:
        raise UserError(explain(error, "site file, [detach]")) from None
    return settings.model_copy(update={"grace": max(1, min(HANDOVER_SECONDS, seconds(settings.time) // 2))})


def controller_of(made: Launch, arguments: list[str], after: str = "") -> Job:
    """The job that runs the launch command `arguments`; `after`: the job whose work it goes on with."""
    code = made.code if made.code is not None else SOURCE.parent
    command = (sys.executable, str(code / "sweeps" / "launch.py"), *arguments)
    log = made.root.controller_log(made.name)
    path = {} if made.code is None else run_from(made.code)
    environment = {**path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(made.site.detach.cpus)}
    return Job(controller_job(made.root, made.name), command, log, environment, after=after, requeue=True)


def controller_script(made: Launch, options: argparse.Namespace) -> str:
    """The sbatch script that --detach would submit."""
    return slurm_backend(controller_settings(made.site)).script(controller_of(made, absolute(options)))


def absolute(options: argparse.Namespace) -> list[str]:
    """The command line of a detached controller: ours, each path once and absolute, less what is for here alone."""
    placed = {"--cluster": "slurm", "--root": str(Root.at(options.root).path)}
    for name in ("study", "data", "site"):
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
    """Submit the controller's job; the exit code.

    Raises:
        UserError: one waits or runs already, or works on these rows here; or Slurm refuses the job.
        ConnectionError: Slurm does not answer, or has no room for a job now.
    """
    refuse_second(made)
    job = controller_of(made, absolute(options))
    try:
        identifier = slurm_backend(controller_settings(made.site)).submit(job)
    except SubmissionRefused as refusal:
        raise UserError(f"--detach: {refusal} (for the controller: in [detach] of the site file)") from None
    except SubmissionDelayed as delay:
        unsure = "" if delay.certain else "; look with --status whether there is a job"
        raise ConnectionError(f"--detach: Slurm says: {delay}{unsure}") from None
    again = f"--study {made.name} --root {made.root.path}"
    print(f"\ndetached: job {identifier} ({job.name}) is the controller; you may log out")
    print(f"what it prints   {job.log}")
    print(f"how it stands    python sweeps/launch.py {again} --status")
    print(f"live             python slurm/monitor.py {again}")
    print(f"end its jobs     python sweeps/launch.py {again} --cancel")
    return 0


def refuse_second(made: Launch) -> None:
    """See whether nobody works on the study.

    Raises:
        UserError: somebody does; with the job's id, or host and process.
        ConnectionError: Slurm does not answer.
    """
    try:
        there = controller_jobs(made.root, made.name)
    except NoAnswer as error:
        refuse_without_slurm("--detach", error)
    if there:
        raise UserError(
            f"--detach: job {there[0].id} ({there[0].state}) is this study's controller already; --status shows it, "
            f"--cancel ends it"
        )
    with take_rows(row.directory for row in made.rows if row.directory.path.is_dir()) as locks:
        for holder in locks.refused.values():
            raise UserError(f"--detach: a controller is at work: {holder}; end it first (kill -USR1 leaves its jobs)")


def begin(made: Launch) -> None:
    """What a controller in a job of its own does first: it says where it runs, and waits for one that died."""
    number, restart = os.environ.get("SLURM_JOB_ID", "?"), os.environ.get("SLURM_RESTART_COUNT", "0")
    print(f"controller: job {number}, start {int(restart) + 1}, on {socket.gethostname()}, {time.ctime()}", flush=True)
    wait_for_rows((row.directory for row in made.rows), STALE_SECONDS + 60)


def goes_on(options: argparse.Namespace) -> bool:
    """Whether this controller goes on for another one: what its command asks for once is done already."""
    return options.detached == NEXT or bool(options.detached and os.environ.get("SLURM_RESTART_COUNT", "0") != "0")


def hand_over(made: Launch, options: argparse.Namespace) -> int:
    """Submit the controller that goes on after this one, unless one waits; the exit code."""
    arguments = options.arguments[: options.arguments.index("--detached")]
    own = os.environ.get("SLURM_JOB_ID", "")
    job = controller_of(made, [*arguments, "--detached", NEXT], after=own)
    backend = slurm_backend(controller_settings(made.site))
    while True:
        try:
            others = [other for other in controller_jobs(made.root, made.name) if other.id != own]
            identifier = others[0].id if others else backend.submit(job)
        except (NoAnswer, SubmissionDelayed) as delay:
            print(f"no successor yet, for Slurm says: {' '.join(str(delay).split())}", flush=True)
            time.sleep(RETRY_SECONDS)
        except SubmissionRefused as refusal:
            print(f"error: no successor: {refusal}; the launch command goes on", file=sys.stderr)
            return 1
        else:
            print(f"job {identifier} goes on as the controller", flush=True)
            return 0


def dismiss_successors(made: Launch) -> None:
    """Cancel a controller that waits to go on where nothing is left to do."""
    own = os.environ.get("SLURM_JOB_ID", "")
    try:
        scancel([job.id for job in controller_jobs(made.root, made.name) if job.id != own])
    except NoAnswer as error:
        print(f"a waiting controller was not cancelled, for Slurm says: {' '.join(str(error).split())}")
