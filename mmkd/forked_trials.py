"""Fork a process for each assigned trial, and note how it ends.

The forking process has no threads, no CUDA context and no open data file, so that forking is safe.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
from setproctitle import setproctitle

from mmkd import trial
from mmkd.config import DataSource, DrawnSplit, StudentConfig, from_json
from mmkd.data import divide, keep_split, read_info
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.models.pairings import resolve_pairing
from mmkd.provenance import SOURCE, loaded_code, source_digest
from mmkd.records import AssignmentRecord, ProcessRecord, read_record, write_record
from mmkd.rundir import TrialDir, WorkerDir
from mmkd.signals import ASK_TO_END


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
        ended = ended_process(pid)
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


def ended_process(pid: int) -> os.waitid_result | None:
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
