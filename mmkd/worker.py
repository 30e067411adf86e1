"""Fork a process for each assigned trial, so that torch is imported once: `python -m mmkd.worker DIR`.

Only the controller assigns work: it renames a file into the worker's inbox. A forked process is `mmkd.trial` itself,
with its session, signals, log and environment. The worker has no threads, no CUDA context and no open data file, so
that forking is safe; it writes down each process id and exit code. It ends when its standard input is closed, which
happens when the controller ends, and its trials have ended.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import shutil
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from mmkd.signals import ASK_TO_END, listen

if __name__ == "__main__":
    EARLY = listen()  # before torch, whose import takes seconds

import psutil
import torch._dynamo  # noqa: F401  # the first optimiser imports it, which takes a second
from setproctitle import setproctitle

from mmkd import trial
from mmkd.command import Parser, run_command
from mmkd.config import StudentConfig, from_json
from mmkd.data import divide, keep_split, read_info
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.models.pairings import resolve_pairing
from mmkd.provenance import SOURCE, loaded_code, source_digest
from mmkd.records import AssignmentRecord, ProcessRecord, read_record, write_record
from mmkd.rundir import TrialDir, WorkerDir

POLL_SECONDS = 0.02
"""Between two looks at the inbox and at the trials."""


def work(worker: WorkerDir, received: list[int]) -> None:
    """Fork assigned trials until standard input is closed, a signal arrives, or the code on disk has changed.

    Returns when the last trial has ended. What is left in the inbox was not begun.

    Raises:
        UserError: an assignment is damaged. The trials that run are not affected.
    """
    code = loaded_code()["code"]
    running: dict[int, tuple[str, ProcessRecord]] = {}
    is_open = True
    while is_open or running:
        is_open = is_open and not received and not _is_closed(POLL_SECONDS)
        for path in sorted(worker.inbox.glob("*.json")) if is_open else ():
            if source_digest(SOURCE) != code:
                is_open = False  # new trials run the new code, in another worker
                break
            assignment = read_record(path, AssignmentRecord)
            path.unlink()
            process = _fork(assignment, received)
            running[process.pid] = path.stem, process
            write_record(worker.process(path.stem), process)
        if not is_open:
            worker.closed.touch()
            select.select([], [], [], POLL_SECONDS)
        _note_ends(worker, running)


def _is_closed(seconds: float) -> bool:
    """Wait for at most so long. True if standard input has been closed; what is written there only wakes us."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 4096)


def _note_ends(worker: WorkerDir, running: dict[int, tuple[str, ProcessRecord]]) -> None:
    """Write the exit codes of ended processes, which stay until then: who finds no process finds its code."""
    for pid, (name, process) in list(running.items()):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            write_record(worker.process(name), process.model_copy(update={"code": code}))
            os.waitpid(pid, 0)
            del running[pid]


def _fork(assignment: AssignmentRecord, received: list[int]) -> ProcessRecord:
    """Start a trial as a process with its own session."""
    _share_data(TrialDir(Path(assignment.arguments[0])))
    signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_END)
    pid = os.fork()
    if pid == 0:
        _run(assignment, received)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_END)
    return ProcessRecord(pid=pid, started=psutil.Process(pid).create_time())


def _run(assignment: AssignmentRecord, received: list[int]) -> None:
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
        os.environ.update(assignment.environment)
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
        info = divide(read_info(config.data.path), config.split)
        inputs = all_of_them = info.modalities
        if isinstance(config, StudentConfig):
            inputs = resolve_pairing(config.pairing, config.primary, info.modalities).inputs
            all_of_them = info.modalities if config.teacher is not None else inputs
        splits = {"train": all_of_them, "valid": inputs, **({"test": inputs} if config.evaluate_test else {})}
        for split, modalities in splits.items():
            keep_split(info, split, modalities)


def main(arguments: list[str] | None = None, received: list[int] | None = None) -> int:
    """The command. `received` holds the signals heard so far; None: begin to listen."""
    parser = Parser(
        prog="python -m mmkd.worker",
        description="Import torch once and fork a process for each trial that a file in DIR/inbox assigns. A launch "
        "starts and stops it.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR")

    def run(options: argparse.Namespace) -> int:
        signals = listen() if received is None else received
        worker = WorkerDir(options.directory)
        loaded_code()  # before anybody edits it
        gc.collect()
        gc.freeze()  # a collection in a trial would copy the pages that it shares with us
        work(worker, signals)
        while not _is_closed(1.0):
            continue  # the controller may still read exit codes
        shutil.rmtree(worker.path, ignore_errors=True)
        return 0

    return run_command(parser, run, arguments)


if __name__ == "__main__":
    code = main(received=EARLY)
    sys.stdout.flush()
    os._exit(code)  # without the exit handlers of libraries, which no trial runs either
