"""Fork a process for each assigned trial, so that torch is imported once: `python -m mmkd.worker DIR`.

Only the controller assigns work: it renames a file into the worker's inbox. A forked process is `mmkd.trial` itself,
with its session, signals, log and environment. The worker has no threads, no CUDA context and no open data file, so
that forking is safe; it writes down each process id and exit code.

A local worker ends when its standard input is closed, which happens when the controller ends, and its trials have
ended. A worker on Slurm (`--slots`) outlives its controller. It ends when the controller writes `close`, when it has
had no trial for a while, or on a signal.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmkd.signals import ASK_TO_END, listen

if __name__ == "__main__":
    EARLY = listen()  # before torch, whose import takes seconds

import psutil
import torch._dynamo  # noqa: F401  # the first optimiser imports it, which takes a second
from setproctitle import setproctitle

from mmkd import trial
from mmkd.command import Parser, run_command
from mmkd.config import DataSource, DrawnSplit, StudentConfig, from_json
from mmkd.data import divide, keep_split, read_info
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.lock import FileLock, LockHeld
from mmkd.models.pairings import resolve_pairing
from mmkd.provenance import SOURCE, loaded_code, source_digest
from mmkd.records import AssignmentRecord, ProcessRecord, WorkerRecord, read_record, write_record
from mmkd.rundir import TrialDir, WorkerDir
from mmkd.trial_state import Failure

POLL_SECONDS = 0.02
"""Between two looks at the inbox and at the trials."""
BEAT_SECONDS = 2.0
"""Between two records of a worker on Slurm."""
FULL_SECONDS = 0.2
"""Between two looks while all slots are taken and no trial ends, or after `QUIET_SECONDS` without a trial: the inbox is
on a network."""
QUIET_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """A trial's process: the assignment's name, the record, its slots and its GPU ("": not chosen here)."""

    name: str
    process: ProcessRecord
    slots: int
    gpu: str


Forked = dict[int, Running]
"""Trials that run, by process id."""


def work(
    worker: WorkerDir, received: list[int], wait: Callable[[Forked], bool], gpus: list[str], slots: float = math.inf
) -> None:
    """Fork assigned trials until `wait` says that no more come, a signal arrives, or the code on disk has changed.

    Returns when the last trial has ended. What is left in the inbox was not begun.

    Args:
        worker: the worker's directory.
        received: signals that ask to end.
        wait: waits a moment; False if nothing more will be assigned.
        gpus: those to divide among the trials, as in CUDA_VISIBLE_DEVICES; none: the assignments name them.
        slots: trials at once.
    """
    code = loaded_code()["code"]
    running: Forked = {}
    unwritten: dict[str, ProcessRecord] = {}
    kills = memory_kills()
    is_open = True
    while is_open or running:
        is_open = wait(running) and is_open and not received
        for path in sorted(worker.inbox.glob("*.json")) if is_open else ():
            if len(running) >= slots:
                break
            if source_digest(SOURCE) != code:
                is_open = False  # new trials run the new code, in another worker
                break
            assignment = _take(worker, path)
            if assignment is None:
                continue
            gpu = min(gpus, key=[r.gpu for r in running.values()].count, default="")
            process = _fork(assignment, received, gpu)
            running[process.pid] = Running(path.stem, process, assignment.slots, gpu)
            unwritten[path.stem] = process
        alive = {ran.name for ran in running.values()}  # an ended one has its last record
        unwritten = {n: p for n, p in unwritten.items() if n in alive and not _write(worker, n, p)}
        if not is_open:
            with suppress(OSError):
                worker.closed.touch()
        kills = _note_ends(worker, running, kills)


def _take(worker: WorkerDir, path: Path) -> AssignmentRecord | None:
    """Take an assignment out of the inbox; None if it is damaged, or if the controller has withdrawn it."""
    try:
        assignment = read_record(path, AssignmentRecord)
    except UserError as error:
        assignment = None
        print(error, file=sys.stderr, flush=True)
    try:
        path.unlink()
    except FileNotFoundError:
        return None  # withdrawn: who removes it decides
    if assignment is None:
        _write(worker, path.stem, ProcessRecord(pid=0, started=0.0, code=trial.EXIT_BAD_INPUT))
    return assignment


def _note_ends(worker: WorkerDir, running: Forked, kills: int) -> int:
    """Write the exit codes of ended processes, which stay until then: who finds no process finds its code.

    `kills` is what `memory_kills` returned before; return what it returns now.
    """
    for pid, ran in list(running.items()):
        ended = _ended(pid)
        if ended is None:
            continue
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        failure = ""
        if code == -signal.SIGKILL and (now := memory_kills()) > kills:
            failure, kills = Failure.OUT_OF_MEMORY, now
        if _write(worker, ran.name, ran.process.model_copy(update={"code": code, "failure": failure})):
            os.waitpid(pid, 0)
            del running[pid]
    return kills


def _ended(pid: int) -> os.waitid_result | None:
    """The exit of a trial's process, left for a later wait; None if it runs."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _write(worker: WorkerDir, name: str, process: ProcessRecord) -> bool:
    """Write a process's record; False if the disk is full or gone: a later try may succeed."""
    try:
        write_record(worker.process(name), process)
    except OSError:
        return False
    return True


def memory_kills(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the processes of this control group that the kernel killed for lack of memory; 0 where it does not say."""
    killed = 0
    with suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            version_1 = "memory" in controllers.split(",")
            if version_1 or number == "0":
                below = f"memory{path}/memory.oom_control" if version_1 else f"{path.lstrip('/')}/memory.events"
                facts = dict(entry.split() for entry in (mounted / below).read_text().splitlines())
                killed = max(killed, int(facts.get("oom_kill", 0)))
    return killed


def _fork(assignment: AssignmentRecord, received: list[int], gpu: str) -> ProcessRecord:
    """Start a trial as a process with its own session."""
    _share_data(TrialDir(Path(assignment.arguments[0])))
    signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_END)
    pid = os.fork()
    if pid == 0:
        _run(assignment, received, {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_END)
    return ProcessRecord(pid=pid, started=psutil.Process(pid).create_time())


def _run(assignment: AssignmentRecord, received: list[int], environment: dict[str, str]) -> None:
    """Be the trial's process, from the fork to the exit. `received` is this process's copy."""
    code = trial.EXIT_ERROR
    try:
        os.setsid()  # Ctrl-C and the end of the controller's terminal do not reach it
        received.clear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_END)
        log = os.open(assignment.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        setproctitle(" ".join((sys.executable, "-m", "mmkd.trial", *assignment.arguments)))  # for ps
        os.environ.update({**environment, **assignment.environment})
        code = trial.main(list(assignment.arguments), received)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else trial.EXIT_ERROR
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _share_data(directory: TrialDir) -> None:
    """Read the splits that a trial needs before it is forked, once for all trials; what is wrong it says itself."""
    with suppress(UserError, OSError, MemoryError):
        config = from_json(read_json(directory.config), directory.config)
        student = None
        if isinstance(config, StudentConfig):
            student = (config.pairing, config.primary, config.teacher is not None)
        _keep_data(config.data, config.split, student, config.evaluate_test)


@cache  # otherwise each trial would wait until the file is opened for each split, longer than for the fork
def _keep_data(data: DataSource, drawn: DrawnSplit | None, student: tuple[str, str, bool] | None, test: bool) -> None:
    """Keep the splits of a data set for a teacher, or for a student: its pairing, primary, and whether it has one.

    Raises:
        UserError: the data or the pairing are invalid. A later call tries again.
    """
    info = divide(read_info(data.path), drawn)
    inputs = all_of_them = info.modalities
    if student is not None:
        pairing, primary, has_teacher = student
        inputs = resolve_pairing(pairing, primary, info.modalities).inputs
        all_of_them = info.modalities if has_teacher else inputs
    splits = {"train": all_of_them, "valid": inputs, **({"test": inputs} if test else {})}
    for split, modalities in splits.items():
        keep_split(info, split, modalities)


def wait_for_input(running: Forked) -> bool:
    """Wait a moment. False if standard input has been closed; what is written there only wakes us."""
    ready, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
    if ready and not os.read(sys.stdin.fileno(), 4096):
        time.sleep(POLL_SECONDS)
        return False
    return True


class Beats:
    """Wait for assignments on Slurm, and record every few seconds that this worker is alive and how busy it is.

    Args:
        worker: the worker's directory.
        study: the study whose controller assigns trials.
        slots: trials at once.
        gpus: GPUs of the job.
        idle: seconds without a trial after which no more are accepted.
        received: signals so far; the first is passed on to the trials, as not every site's Slurm reaches them.
    """

    def __init__(
        self, worker: WorkerDir, study: str, slots: int, gpus: int, idle: float, received: Sequence[int]
    ) -> None:
        self.worker, self.slots, self.idle, self.received = worker, slots, idle, received
        self._passed_on = False
        self._looked = self._busy_at = time.monotonic()
        self._began = self._looked - (time.time() - psutil.Process().create_time())  # the import of torch is paid too
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        facts = {"study": study, "slots": slots, "gpus": gpus, "node": node}
        self._record = WorkerRecord(**facts, beat=0, seconds=0.0, taken=0, busy=0.0)
        self._busy, self._taken = 0.0, 0
        self.record()

    def __call__(self, running: Forked) -> bool:
        """See `work`."""
        taken = self._taken = sum(ran.slots for ran in running.values())
        is_quiet = self._looked - self._busy_at > QUIET_SECONDS
        time.sleep(POLL_SECONDS)
        if is_quiet or taken >= self.slots:
            _wait_for_an_end(running, FULL_SECONDS - POLL_SECONDS)
        now = time.monotonic()
        self._busy += taken * (now - self._looked)
        self._looked = now
        if running:
            self._busy_at = now
        if self.received and not self._passed_on:
            self._passed_on = True
            for pid in running:
                os.kill(pid, self.received[0])
        if now - self._began - self._record.seconds > BEAT_SECONDS:
            self.record()
        return now - self._busy_at < self.idle and not self.worker.close.exists()

    def record(self) -> None:
        """Write `worker.json`. A full disk ends no trial: the next record may succeed."""
        seconds = time.monotonic() - self._began
        facts = {"beat": self._record.beat + 1, "seconds": seconds, "taken": self._taken, "busy": self._busy}
        self._record = self._record.model_copy(update=facts)
        with suppress(OSError):
            write_record(self.worker.record, self._record)
            # An NFS client shows its listing of a directory for up to 30 s, unless it changes the directory itself.
            mark = self.worker.inbox / ".look"
            mark.touch()
            mark.unlink()


def _wait_for_an_end(running: Forked, seconds: float) -> None:
    """Wait so long, or until a trial's process has ended: to ask the kernel costs the network nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not any(_ended(pid) for pid in running):
        time.sleep(POLL_SECONDS)


def job_id() -> str:
    """The id of this Slurm job, of an array's member as squeue shows it; without Slurm the process id."""
    array = (os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID"))
    return "_".join(filter(None, array)) if all(array) else os.environ.get("SLURM_JOB_ID", str(os.getpid()))


def serve_locally(worker: WorkerDir, received: list[int]) -> None:
    """Work for a controller on this machine, and remove the directory once it has ended."""
    work(worker, received, wait_for_input, [])
    while wait_for_input({}):
        continue  # the controller may still read exit codes
    shutil.rmtree(worker.path, ignore_errors=True)


def serve_on_slurm(worker: WorkerDir, received: list[int], options: argparse.Namespace) -> None:
    """Work for a controller elsewhere. Only the record stays: GPU-hours are counted from it."""
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    worker.closed.unlink(missing_ok=True)  # of an earlier cluster whose job ids repeat
    beats = Beats(worker, options.work_for, options.slots, len(gpus), options.idle, received)
    work(worker, received, beats, gpus, options.slots)
    beats.record()
    worker.tidy()


def main(arguments: list[str] | None = None, received: list[int] | None = None) -> int:
    """The command. `received` holds the signals heard so far; None: begin to listen."""
    parser = Parser(
        prog="python -m mmkd.worker",
        description="Import torch once and fork a process for each trial that a file in DIR/inbox assigns. A launch "
        "starts and stops it.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="with --slots: the parent of the directory")
    parser.add_argument("--slots", type=int, metavar="N", help="run as a job on Slurm, at most N trials at once")
    parser.add_argument("--for", dest="work_for", default="", metavar="STUDY", help="with --slots: the study")
    parser.add_argument("--idle", type=float, default=600.0, metavar="SECONDS", help="with --slots: end after so long")

    def run(options: argparse.Namespace) -> int:
        signals = listen() if received is None else received
        worker = WorkerDir(options.directory / job_id() if options.slots else options.directory)
        for directory in (worker.path, worker.inbox, worker.process("").parent):
            directory.mkdir(exist_ok=True)
        lock = FileLock(worker.lock)
        try:
            lock.acquire()
        except LockHeld as held:
            raise UserError(f"{held}: a directory has one worker") from None
        loaded_code()  # before anybody edits it
        gc.collect()
        gc.freeze()  # a collection in a trial would copy the pages that it shares with us
        if options.slots:
            serve_on_slurm(worker, signals, options)
        else:
            serve_locally(worker, signals)
        return 0

    return run_command(parser, run, arguments)


if __name__ == "__main__":
    code = main(received=EARLY)
    sys.stdout.flush()
    os._exit(code)  # without the exit handlers of libraries, which no trial runs either
