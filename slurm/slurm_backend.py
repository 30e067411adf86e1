"""Jobs on Slurm: submitit writes the scripts, one batched question at a polite rate tells what became of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from slurm.accounting import FAILURES, PATIENCE, EndedJob, NoAnswer, QueuedJob, sacct, scancel, squeue
from slurm.backend import Handle, Job, Report, SubmissionDelayed, SubmissionRefused
from slurm.settings import SlurmSettings

FULL = re.compile(r"(QOS|Assoc)\w*Submit\w*Limit|MaxSubmitJobs|Job limit|MaxJobCount", re.IGNORECASE)
"""sbatch's words where the user has as many jobs as the site allows: later there is room."""
UNREACHED = re.compile(r"Unable to contact slurm controller|Connection refused|temporarily unable", re.IGNORECASE)
"""sbatch's words where no job was made, for the scheduler was not to be had."""
UNSURE = re.compile(r"timed out|Zero Bytes|Unexpected message|Transport endpoint|Connection reset", re.IGNORECASE)
"""sbatch's words where the scheduler may have made the job and could not say so."""
ABSENT_SECONDS = 60.0
"""A job that the queue has not shown by its name for so long was never made: an sbatch may outlive its controller."""

HINTS = {
    "unrecognized option": "see sbatch --help, then --slurm.extra",
    "policy": "ask for less (--slurm.time, .gpus, .mem, .cpus), or choose one of 'sacctmgr show qos' with --slurm.qos",
    "invalid account": "choose one of 'sacctmgr show associations user=$USER' with --slurm.account",
    "invalid qos": "choose one of 'sacctmgr show qos' with --slurm.qos",
    "partition": "choose one of sinfo's with --slurm.partition",
    "time": "ask for less with --slurm.time",
    "memory": "ask for less with --slurm.mem",
    "node configuration": "no node has all that: see sinfo -o '%P %G %c %m', then --slurm.gpus, .cpus, .mem",
    "cpu count": "see sinfo -o '%P %c', then --slurm.cpus",
    "gres": "see sinfo -o '%P %G', then --slurm.gpus",
    "feature": "see sinfo -o '%P %f', then --slurm.constraint",
    "node name": "see sinfo -N, then --slurm.nodelist, .exclude",
}
"""What to change, by a word of sbatch's complaint; the first that fits."""


class SlurmBackend:
    """Jobs of a Slurm cluster.

    A handle's job is the one with its id and its name; where the id is not known, the latest of that name.

    Args:
        settings: what each job asks for.

    Raises:
        SubmissionRefused: this machine has no Slurm.
    """

    name = "slurm"
    prompt = False

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings, self.gpus = settings, settings.gpu_count
        self._queue: dict[str, QueuedJob] = {}
        self._names: dict[str, QueuedJob] = {}
        self._asked, self._answered = 0.0, 0.0
        self._first_seen: dict[Handle, float] = {}
        self._usage_asked = 0.0
        self.questions = 0
        """Calls of squeue and sacct so far."""
        try:
            SlurmExecutor(".")
        except RuntimeError:
            raise SubmissionRefused("this machine has no srun: run on a login node, or with --cluster local") from None

    def script(self, job: Job) -> str:
        """The sbatch script of a job.

        Raises:
            SubmissionRefused: a name or a path would break out of its line of options.
        """
        for text in (job.name, str(job.log), job.after, *job.avoid):
            if "\\" in text or not text.isprintable():  # quotes keep all else together, for sbatch and for the shell
                raise SubmissionRefused(f"{text!r}: sbatch takes no line breaks, control characters and '\\' here")
        settings, log = self.settings, str(job.log).replace("%", "%%")  # %j and the like are Slurm's
        executor = SlurmExecutor(job.log.parent)
        additional = {
            "output": log, "error": log, "requeue" if job.requeue else "no-requeue": True,
            "mem": settings.memory(job.memory),
            "cpus-per-task": settings.cpus, "time": settings.time, "signal": f"USR2@{settings.grace}",
            **settings.gpu_options(), **{name: value or True for name, value in settings.extra.items()},
        }  # fmt: skip
        executor.update_parameters(
            job_name=job.name,
            partition=settings.partition,
            account=settings.account,
            qos=settings.qos,
            constraint=settings.constraint,
            nodelist=settings.nodelist,
            exclude=",".join(filter(None, (settings.exclude, *job.avoid))) or None,
            dependency=f"afterany:{job.after}" if job.after else None,
            wckey=None,
            setup=[
                *map(_checked, settings.setup),
                *(f"export {k}={shlex.quote(v)}" for k, v in job.environment.items()),
            ],
            use_srun=False,
            additional_parameters=additional,
        )
        # srun, so that Slurm's signals reach the trial and not the shell around it; since 22.05 it does not inherit the
        # number of cores.
        srun = shlex.join(["srun", "--unbuffered", f"--cpus-per-task={settings.cpus}"])
        command = " ".join(filter(None, (srun, settings.prefix, shlex.join([settings.python, *job.command[1:]]))))
        return str(executor._make_submission_file_text(command, uid=""))

    def submit(self, job: Job) -> str:
        """See `Backend`."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        path = job.log.with_suffix(".sbatch")
        path.write_text(self.script(job), encoding="utf-8")
        try:
            return self._sbatch(path)
        except SubmissionRefused:
            if not job.avoid:
                raise
            path.write_text(self.script(_anywhere(job)), encoding="utf-8")  # perhaps there is no other node
            return self._sbatch(path)

    def _sbatch(self, path: Path) -> str:
        # Inside a job (the detached controller's) srun would take that job's variables for its own. A user's defaults
        # for sbatch win over a script, so that only those are left of which the script says nothing.
        silent = [name for name in ("account", "partition", "qos", "constraint") if not getattr(self.settings, name)]
        kept = {"SLURM_CONF", *(f"SBATCH_{name.upper()}" for name in silent)}
        clean = {n: v for n, v in os.environ.items() if n in kept or not n.startswith(("SLURM_", "SBATCH_"))}
        command = ["sbatch", "--parsable", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, env=clean)
        except FileNotFoundError:
            raise SubmissionRefused("sbatch: no such command; run on a login node, or with --cluster local") from None
        except subprocess.TimeoutExpired:
            raise SubmissionDelayed("sbatch does not answer", certain=False) from None
        if done.returncode == 0:
            return done.stdout.strip().split("\n")[-1].split(";")[0]
        raise _complaint(done.stderr.strip())

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """See `Backend`. Slurm is asked at most once in `settings.poll` seconds; in between, the last answer holds."""
        now = time.monotonic()
        for handle in handles:
            self._first_seen.setdefault(handle, now)
        for handle in self._first_seen.keys() - set(handles):
            del self._first_seen[handle]
        if handles and now - self._asked >= self.settings.poll:
            self._ask()
        reports = {handle: self._report(handle) for handle in handles}
        self._ask_accounting_for([handle for handle, report in reports.items() if report is None], reports)
        return {handle: report or Report(True) for handle, report in reports.items()}

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """See `Backend`; asked at the same rate as `poll`."""
        wanted = {handle.id: handle for handle in handles if handle.id}
        if not wanted or not (at_once or time.monotonic() - self._usage_asked >= self.settings.poll):
            return {}
        self._usage_asked = time.monotonic()
        try:
            self.questions += 1
            known = sacct(wanted)
        except NoAnswer:
            return {}
        ended = (job for job in known.values() if job.state in FAILURES or job.state == "COMPLETED")
        return {wanted[job.id]: job.facts for job in ended if job.name == wanted[job.id].name}

    def cancel(self, handles: Collection[Handle]) -> None:
        """See `Backend`. Ids are checked against the queue first: another job may bear one by now."""
        self._ask()
        found = [self._find(handle) for handle in handles]
        try:
            scancel([job.id for job in found if job is not None and not job.ended])
        except NoAnswer as error:
            raise ConnectionError(f"jobs could not be cancelled, and go on: {error}") from None

    def _ask(self) -> None:
        """Ask squeue; where it does not answer, the last answer holds."""
        asked = time.monotonic()
        self.questions += 1
        try:
            jobs = squeue()
        except NoAnswer:
            return
        finally:
            self._asked = time.monotonic()  # a scheduler that is slow to answer is not asked all the time
        self._answered = asked
        self._queue = {job.id: job for job in jobs}
        self._names = {job.name: job for job in jobs}

    def _find(self, handle: Handle) -> QueuedJob | None:
        if not handle.id:
            return self._names.get(handle.name)
        job = self._queue.get(handle.id)
        return job if job is not None and job.name == handle.name else None

    def _report(self, handle: Handle) -> Report | None:
        """What the queue says of a job; None where a later answer than the job does not show it."""
        if self._answered <= self._first_seen[handle]:
            return Report(True)
        job = self._find(handle)
        if job is None:
            unborn = not handle.id and self._answered - self._first_seen[handle] < ABSENT_SECONDS
            return Report(True) if unborn else None
        if not job.ended:
            return Report(True, message=job.state, id=job.id, node=job.node)
        return _end(job.state, job.reason, job.id, job.node)

    def _ask_accounting_for(self, missing: list[Handle], reports: dict[Handle, Report | None]) -> None:
        """Tell of jobs that the queue has forgotten: from accounting, or where there is none, that they are gone."""
        ids = {handle.id for handle in missing if handle.id}
        known: dict[str, EndedJob] = {}
        try:
            if ids:
                self.questions += 1
                known = sacct(ids)
        except NoAnswer:
            known = {}  # a site without accounting, or its database is down: the queue's word must do
        for handle in missing:
            job = known.get(handle.id)
            if job is None or job.name != handle.name:
                never = "Slurm has no job of that name" if not handle.id else "Slurm does not know the job any more"
                reports[handle] = Report(False, "node_fail" if handle.id else "cancelled", never, handle.id)
            else:
                reports[handle] = _end(job.state, job.exit_code, job.id, str(job.facts.get("node", "")))


def _checked(setup: str) -> str:
    """A setup line that acts on the script's own shell, and ends the job with a word where it fails.

    `eval` keeps an entry of several lines, a comment or a syntax error to itself. A `set -e` would check it too, and
    each line of what it sources, where conda's scripts and the like fail harmlessly.
    """
    shown = "; ".join(line.strip() for line in setup.splitlines() if line.strip())
    complaint = f"printf 'mmkd: setup line failed (exit %s): %s\\n' \"$?\" {shlex.quote(shown)} >&2"
    return f"eval {shlex.quote(setup)} || {{ {complaint}; exit 1; }}"


def _anywhere(job: Job) -> Job:
    return replace(job, avoid=())


def _end(state: str, reason: str, identifier: str, node: str) -> Report:
    """The end of a job; accounting may still call one RUNNING that the queue has lost with its node."""
    failure = FAILURES.get(state, "" if state == "COMPLETED" else "node_fail")
    words = f"Slurm says {state}" + (f" ({reason})" if reason not in ("", "None", "0:0") else "")
    return Report(False, failure, words, identifier, node)


def _complaint(said: str) -> SubmissionDelayed | SubmissionRefused:
    """What sbatch's complaint means: later, perhaps, or never."""
    line = "; ".join(part.removeprefix("sbatch: error: ") for part in said.splitlines() if part.strip())
    # sbatch tries again by itself, so that it may have said several things; what leaves a doubt counts.
    for words, certain in ((FULL, True), (UNSURE, False), (UNREACHED, True)):
        if words.search(said):
            return SubmissionDelayed(line, certain=certain)
    hints = [hint for word, hint in HINTS.items() if word in said.lower()]
    return SubmissionRefused(f"sbatch refused: {line}" + (f"; {hints[0]}" if hints else ""))
