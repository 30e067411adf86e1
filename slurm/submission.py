"""Submission through submitit: the sbatch script, the call of sbatch, and the meaning of its error messages."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from subprocess import CalledProcessError
from threading import Event, Thread
from typing import Any

import psutil
from submitit import Job as SubmititJob
from submitit import SlurmExecutor, SlurmJob
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths

from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from slurm.settings import UNCHANGED, SlurmSettings

REACHING = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_JWKS")
"""Variables by which commands find the cluster and prove who we are; a job around us sets none of them by itself."""

SBATCH_SECONDS = 120.0
"""Time limit of one sbatch; it retries by itself while the scheduler is busy."""

FULL = re.compile(r"(QOS|Assoc)\w*Submit\w*Limit|MaxSubmitJobs|Job limit|MaxJobCount", re.IGNORECASE)
"""sbatch's error if the user has as many jobs as the site allows: there will be room later."""
UNREACHED = re.compile(r"Unable to contact slurm controller|Connection refused|temporarily unable", re.IGNORECASE)
"""sbatch's error if the scheduler was not reached, so that no job was created."""
UNSURE = re.compile(r"timed out|Zero Bytes|Unexpected message|Transport endpoint|Connection reset", re.IGNORECASE)
"""sbatch's error if the scheduler may have created the job without being able to answer."""

SETUP_FAILED = "mmkd: setup line failed"
"""The beginning of the message of a job that ends because an entry of `setup` failed."""

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
"""The option to change, by a word of sbatch's error message; the first match counts."""


class _ScriptPaths(JobPaths):
    @property
    def folder(self) -> Path:
        """The directory under its literal name: submitit would replace a %j or %a in its path by the job's id."""
        return Path(self._folder)

    def move_temporary_file(self, tmp_path: Path | str, name: str, keep_as_symlink: bool = False) -> None:
        """Leave the script where `CommandExecutor` put it, not at JOBID_submission.sh with a symbolic link to it."""


class CommandJob(SlurmJob[Any]):
    """A job of `CommandExecutor`. It has no pickled result: a trial writes its own."""

    def __init__(self, folder: Path | str, job_id: str, tasks: tuple[int, ...] = (0,)) -> None:
        super().__init__(folder, job_id, tasks)
        self._paths = _ScriptPaths(folder, job_id=job_id)


class CommandExecutor(SlurmExecutor):
    """submitit's executor for one job that runs a command instead of a pickled function (docs/slurm.md says why).

    Args:
        job: what to run; its script becomes `log` with the ending .sbatch.
        settings: resources and setup of each job.

    Raises:
        SubmissionRefused: a name or a path would break out of its line of options.
    """

    job_class: type[SlurmJob[Any]] = CommandJob

    def __init__(self, job: Job, settings: SlurmSettings) -> None:
        for text in (job.name, str(job.log), job.after, *job.avoid):
            if "\\" in text or not text.isprintable():  # quotes keep all else together, for sbatch and for the shell
                raise SubmissionRefused(f"{text!r}: sbatch takes no line breaks, control characters and '\\' here")
        python = f"{settings.prefix} {shlex.quote(settings.python)}".lstrip()
        super().__init__(job.log.parent.absolute(), python=python)
        self.job, self.settings, self.script_file = job, settings, job.log.with_suffix(".sbatch")
        self.update_parameters(**_parameters(job, settings))

    @property
    def script(self) -> str:
        """The sbatch script."""
        return self._make_submission_file_text(self._submitit_command_str, uid="")

    def submit_command(self) -> SubmititJob[Any]:
        """Submit the job.

        Raises:
            SubmissionDelayed, SubmissionRefused: see these.
            OSError: the script could not be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        ended = Event()
        Thread(target=self._watch_sbatch, args=(ended,), daemon=True).start()
        try:
            # submitit prints sbatch's errors, which its exception also holds.
            with _without(self._inherited()), redirect_stderr(io.StringIO()):
                return self._submit_command(self._submitit_command_str)
        except FileNotFoundError as error:
            if error.filename != "sbatch":
                raise
            raise SubmissionRefused("sbatch: no such command; run on a login node, or with --cluster local") from None
        except FailedSubmissionError as error:
            raise SubmissionDelayed(f"nothing: {error}", certain=False) from None
        except FailedJobError as error:
            raise _submission_error(error, self.settings) from None
        finally:
            ended.set()

    def test_only(self) -> str:
        """Ask sbatch whether it would accept the job, without submitting it. Return its answer with a start estimate.

        Raises:
            SubmissionDelayed, SubmissionRefused: it would not, or does not answer.
        """
        with tempfile.NamedTemporaryFile("w", prefix="mmkd-", suffix=".sbatch") as script, _without(self._inherited()):
            script.write(self.script)
            script.flush()
            command = ["sbatch", "--test-only", script.name]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SBATCH_SECONDS)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SubmissionDelayed(f"nothing: {error}", certain=True) from None
        if done.returncode:
            raise _explain(done.stderr or f"exit code {done.returncode}", self.settings)
        said = [line.removeprefix("sbatch: ") for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return said[-1] if said else "sbatch accepts it"

    @property
    def _submitit_command_str(self) -> str:
        # srun, so that Slurm's signals reach the trial and not the shell around it; since 22.05 it does not inherit the
        # number of cores. It does inherit --export=NONE, which would take setup's variables away.
        srun = f"srun --export=ALL --unbuffered --cpus-per-task={self.settings.cpus}"
        return f"{srun} {self.python} {shlex.join(self.job.command[1:])}"

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        submission_file_path.replace(self.script_file)
        return ["sbatch", "--parsable", str(self.script_file)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        found = re.search(r"^(\d+)(;\S*)?\Z", str(string), re.MULTILINE)  # ID or ID;CLUSTER, after what a site prints
        if found is None:
            raise FailedSubmissionError(f"sbatch printed no job id: {string!r}")
        return found[1]

    def _watch_sbatch(self, ended: Event) -> None:
        """Kill an sbatch that does not answer: again until it has ended, because it may just be starting."""
        if ended.wait(SBATCH_SECONDS):
            return
        self._kill_sbatch()
        while not ended.wait(0.1):
            self._kill_sbatch()

    def _kill_sbatch(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process().children():
                if str(self.script_file) in child.cmdline():
                    # sbatch may be a site's script, which must not go on when its own command dies
                    for process in (child, *child.children(recursive=True)):
                        process.kill()

    def _inherited(self) -> list[str]:
        """Variables of ours that sbatch must not see.

        Inside a job (the detached controller's) srun would take that job's variables for its own. A user's defaults for
        sbatch override a script, so only those are kept for which the script has no value.
        """
        unset = [name for name in UNCHANGED if not getattr(self.settings, name)]
        kept = {*REACHING, *(f"SBATCH_{name.upper()}" for name in unset)}
        return [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name not in kept]


@contextmanager
def _without(variables: Iterable[str]) -> Iterator[None]:
    """Take variables out of the environment for a while: submitit runs sbatch in ours."""
    removed = {name: os.environ.pop(name) for name in variables}
    try:
        yield
    finally:
        os.environ.update(removed)


def _parameters(job: Job, settings: SlurmSettings) -> dict[str, Any]:
    """Arguments of submitit's `update_parameters`."""
    log = str(job.log).replace("%", "%%")  # %j and the like are Slurm's
    if job.copies:
        log = f"{log.removesuffix(job.log.suffix)}.%A_%a{job.log.suffix}"
    additional = {
        "output": log, "error": log, "requeue" if job.requeue else "no-requeue": True,
        **settings.memory_options(job.memory),
        "cpus-per-task": settings.cpus, "time": settings.time, "signal": f"USR2@{settings.grace}",
        **({"array": f"0-{job.copies - 1}"} if job.copies else {}),
        **settings.gpu_options(), **{name: value or True for name, value in settings.extra.items()},
    }  # fmt: skip
    variables = (f"export {name}={shlex.quote(value)}" for name, value in job.environment.items())
    return {
        "job_name": job.name,
        **{name: getattr(settings, name) for name in UNCHANGED},
        "exclude": ",".join(filter(None, (settings.exclude, *job.avoid))) or None,
        "dependency": f"afterany:{job.after}" if job.after else None,
        "wckey": None,
        "setup": [*map(_checked, settings.setup), *variables],
        "use_srun": False,  # CommandExecutor adds its own: submitit's would redirect the output
        "additional_parameters": additional,
    }


def _checked(setup: str) -> str:
    """An entry of `setup` for the job's own shell; if it fails, the job ends with a message before the trial starts.

    `eval` contains an entry of several lines, a comment or a syntax error. A `set -e` would also check each line of
    what the entry sources, and conda's scripts and the like have lines that fail harmlessly.
    """
    shown = "; ".join(line.strip() for line in setup.splitlines() if line.strip())
    complaint = f"printf '{SETUP_FAILED} (exit %s): %s\\n' \"$?\" {shlex.quote(shown)} >&2"
    return f"eval {shlex.quote(setup)} || {{ {complaint}; exit 1; }}"


def _submission_error(error: FailedJobError, settings: SlurmSettings) -> SubmissionDelayed | SubmissionRefused:
    """Classify a failed sbatch: try again later, or never."""
    failed = error.__cause__
    if not isinstance(failed, CalledProcessError):  # its output could not be read
        return SubmissionDelayed(f"nothing legible: {failed}", certain=False)
    if failed.returncode < 0:  # by the watchdog, or by Ctrl-C, which reaches it too
        return SubmissionDelayed("nothing: sbatch was killed", certain=False)
    return _explain(str(failed.stderr) if str(failed.stderr).strip() else f"exit code {failed.returncode}", settings)


def _explain(text: str, settings: SlurmSettings) -> SubmissionDelayed | SubmissionRefused:
    """Classify sbatch's error message, and name the option to change and what was asked for."""
    words = (line.removeprefix("sbatch: error: ").removeprefix("sbatch: ") for line in text.splitlines())
    line = "; ".join(filter(str.strip, words))
    # sbatch retries by itself and may have printed several messages: one that leaves a doubt decides.
    for pattern, certain in ((FULL, True), (UNSURE, False), (UNREACHED, True)):
        if pattern.search(text):
            return SubmissionDelayed(line, certain=certain)
    hints = [hint for word, hint in HINTS.items() if word in text.lower()]
    asked = (
        f" (the job asked for {settings.describe_request()})"
        if re.search(r"memory|node config|cpu", text, re.I)
        else ""
    )
    return SubmissionRefused(f"sbatch refused: {line}{asked}" + (f"; {hints[0]}" if hints else ""))
