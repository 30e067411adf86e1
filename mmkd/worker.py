"""Fork a process for each assigned trial, so that torch is imported once: `python -m mmkd.worker DIR`.

Only the controller assigns work: it renames a file into the worker's inbox. A forked process is `mmkd.trial` itself,
with its session, signals, log and environment (`mmkd.forked_trials`).

A local worker ends when its standard input is closed, which happens when the controller ends, and its trials have
ended. A worker on Slurm (`--slots`) outlives its controller. It ends when the controller writes `close`, when it has
had no trial for a while, or on a signal.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmkd.signals import listen

if __name__ == "__main__":
    EARLY = listen()  # before torch, whose import takes seconds

import psutil
import torch._dynamo  # noqa: F401  # the first optimiser imports it, which takes a second

from mmkd.command import Parser, run_command
from mmkd.errors import UserError
from mmkd.forked_trials import Forked, ended_process, work
from mmkd.lock import FileLock, LockHeld
from mmkd.provenance import loaded_code
from mmkd.records import WorkerRecord, write_record
from mmkd.rundir import WorkerDir

POLL_SECONDS = 0.02
"""Between two looks at the inbox and at the trials."""
BEAT_SECONDS = 2.0
"""Between two records of a worker on Slurm."""
FULL_SECONDS = 0.2
"""Between two looks while all slots are taken and no trial ends, or after `QUIET_SECONDS` without a trial: the inbox is
on a network."""
QUIET_SECONDS = 10.0


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
    while time.monotonic() < until and not any(ended_process(pid) for pid in running):
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
