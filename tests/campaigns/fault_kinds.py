"""What `faults.py` does to a study: a function a kind of fault.

Each gets the study, at a random moment of its work, and the campaign's chance; it returns what it hit, or "" where
there was nothing to hit. Afterwards the study may be running or not, damaged or not: the campaign launches it again.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from fault_damage import (
    checkpoint_flipped,
    checkpoint_truncated,
    clock_jump,
    finished_damaged,
    journal_cut,
    result_flipped,
    result_truncated,
    teacher_flipped,
    torn_lines,
)
from fault_sites import bad_node, clock_ahead, clock_behind, hanging_queue, stripped_environment
from fault_study import AttackedStudy, directory_of, environment, kill
from survival import Stuck, wait_for

from mmkd.attempts import current_attempt
from slurm.devcluster.processes import find_daemon

Fault = Callable[[AttackedStudy, random.Random], str]

ENDING_SECONDS = 150.0
"""A controller that is asked to end waits a minute for its jobs' checkpoints."""
REFUSED = 2


def _signal_controller(study: AttackedStudy, number: signal.Signals) -> str:
    controller = study.controller()
    if controller is None:
        return ""
    controller.send_signal(number)
    wait_for("the controller's end", lambda: controller.poll() is not None, ENDING_SECONDS)
    return f"the controller, which ended with {controller.returncode}"


def _signal_trial(study: AttackedStudy, chance: random.Random, number: signal.Signals) -> str:
    trials = study.trials()
    if not trials:
        return ""
    victim = chance.choice(trials)
    directory = directory_of(victim)
    return study.name(directory.path) if directory and kill(victim, number) else ""


def _pause(study: AttackedStudy, victim: psutil.Process, chance: random.Random) -> str:
    seconds = chance.uniform(0.5, 4.0)
    if not kill(victim, signal.SIGSTOP):
        return ""
    time.sleep(seconds)
    kill(victim, signal.SIGCONT)
    return f"stopped for {seconds:.1f} s"


def controller_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of the controller; its jobs live on."""
    return _signal_controller(study, signal.SIGKILL)


def trial_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of a trial."""
    return _signal_trial(study, chance, signal.SIGKILL)


def both_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of the controller and of all trials, as when a machine loses power."""
    hit = _signal_controller(study, signal.SIGKILL)
    killed = sum(kill(trial, signal.SIGKILL) for trial in study.trials())
    return f"{hit}, and {killed} trials" if hit else ""


def controller_terminated(study: AttackedStudy, chance: random.Random) -> str:
    """SIGTERM to the controller, which ends its jobs."""
    return _signal_controller(study, signal.SIGTERM)


def controller_interrupted(study: AttackedStudy, chance: random.Random) -> str:
    """SIGINT to the controller, as by Ctrl-C."""
    return _signal_controller(study, signal.SIGINT)


def trial_terminated(study: AttackedStudy, chance: random.Random) -> str:
    """SIGTERM to a trial, as by a preemption."""
    return _signal_trial(study, chance, signal.SIGTERM)


def trial_interrupted(study: AttackedStudy, chance: random.Random) -> str:
    """SIGINT to a trial."""
    return _signal_trial(study, chance, signal.SIGINT)


def controller_paused(study: AttackedStudy, chance: random.Random) -> str:
    """SIGSTOP to the controller for some seconds, then SIGCONT."""
    controller = study.controller()
    return _pause(study, psutil.Process(controller.pid), chance) if controller else ""


def trial_paused(study: AttackedStudy, chance: random.Random) -> str:
    """SIGSTOP to a trial for some seconds, then SIGCONT."""
    trials = study.trials()
    return _pause(study, chance.choice(trials), chance) if trials else ""


def worker_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of the process that forks the trials, which live on."""
    worker = study.worker()
    return f"process {worker.pid}" if worker and kill(worker, signal.SIGKILL) else ""


def worker_paused(study: AttackedStudy, chance: random.Random) -> str:
    """SIGSTOP to the process that forks the trials, for some seconds or for good."""
    worker = study.worker()
    if worker is None:
        return ""
    if study.cluster is None and chance.random() < 0.5:
        return "stopped for good" if kill(worker, signal.SIGSTOP) else ""
    return _pause(study, worker, chance)


def worker_out_of_memory(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of the process that forks the trials and of all trials, as the kernel does where they share a limit."""
    worker = study.worker()
    if worker is None or not kill(worker, signal.SIGKILL):
        return ""
    return f"it and {sum(kill(trial, signal.SIGKILL) for trial in study.trials())} trials"


def torn_inbox(study: AttackedStudy, chance: random.Random) -> str:
    """Garbage in the inbox of the process that forks the trials."""
    inbox = study.inbox()
    if inbox is None:
        return ""
    torn = chance.choice((b"", b'{"arguments": ["/tmp"', b"\xff" * 99, b'{"arguments": 3}'))
    with suppress(FileNotFoundError):
        (inbox / "torn.json").write_bytes(torn)
        return f"{len(torn)} bytes"
    return ""


def second_worker(study: AttackedStudy, chance: random.Random) -> str:
    """A second worker is started on the first one's directory: it must end at once."""
    inbox = study.inbox()
    if inbox is None:
        return ""
    command = [sys.executable, "-m", "mmkd.worker", str(inbox.parent)]
    second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=120)
    if second.returncode != REFUSED and inbox.exists():
        raise Stuck(f"a second worker ended with {second.returncode}: {second.stderr.decode()}")
    return "it was refused"


def full_disk(study: AttackedStudy, chance: random.Random) -> str:
    """The root's file system is full for some seconds: to the last byte, or but for a few KB."""
    if not study.own_disk or not study.controller():
        return ""
    left, seconds = chance.choice((0, 0, 4096, 65536)), chance.uniform(1.0, 4.0)
    ballast = study.disk / "ballast"
    _fill(ballast, left)
    try:
        time.sleep(seconds)
        return f"{left} bytes left for {seconds:.1f} s; the controller {_says(study)}"
    finally:
        ballast.unlink()


def _fill(ballast: Path, left: int) -> None:
    """Take what the file system has, but for `left` bytes, while others take of it too."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(file.tell() - left)


def read_only(study: AttackedStudy, chance: random.Random) -> str:
    """A folder in which nothing can be made or renamed for some seconds; for root too, so not by its mode."""
    if not study.own_disk or not study.controller():
        return ""
    trials = [directory.path for directory in map(directory_of, study.trials()) if directory]
    folders = [
        study.root,
        study.root / "rows",
        *trials,
        *(t / "attempts" for t in trials),
        *(t.parents[1] for t in trials),
    ]
    folder, seconds = chance.choice([f for f in folders if f.is_dir()]), chance.uniform(1.0, 4.0)
    subprocess.run(["chattr", "+i", folder], check=True)
    try:
        time.sleep(seconds)
        return f"{study.name(folder)} for {seconds:.1f} s; the controller {_says(study)}"
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


def duplicated_job(study: AttackedStudy, chance: random.Random) -> str:
    """The command of a running job is started a second time by hand: as its own attempt, or as an earlier one."""
    directories = [directory for directory in map(directory_of, study.trials()) if directory]
    if not directories:
        return ""
    directory = chance.choice(directories)
    current = current_attempt(directory)
    attempt = chance.choice((current, max(current - 1, 0)))
    study.start_by_hand(directory, attempt)
    return f"{study.name(directory.path)}: attempt {attempt} beside {current}"


def slow_files(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies; its successor and that one's jobs write slowly."""
    if not _signal_controller(study, signal.SIGKILL):
        return ""
    study.start(slow=True)
    return "each flush, rename and opening takes up to 50 ms"


def two_launches(study: AttackedStudy, chance: random.Random) -> str:
    """The controller dies, and two take its place at once: one of them must be refused."""
    if not _signal_controller(study, signal.SIGKILL):
        return ""
    first, second = study.start(), study.start()
    wait_for("the end of one of two controllers", lambda: first.poll() is not None or second.poll() is not None)
    if 0 in (first.returncode, second.returncode):
        return ""  # there was nothing left to do
    if REFUSED not in (first.returncode, second.returncode):
        raise Stuck(f"two controllers at once ended with {first.returncode} and {second.returncode}")
    loser = first if first.returncode == REFUSED else second
    study.controllers.remove(loser)  # how the study ended, the other one says
    return "one of two was refused"


def slurmctld_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of Slurm's controller; it comes back some seconds later."""
    return _kill_daemon(study, chance, "slurmctld")


def slurmdbd_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of Slurm's accounting; it comes back some seconds later."""
    return _kill_daemon(study, chance, "slurmdbd")


def slurmd_killed(study: AttackedStudy, chance: random.Random) -> str:
    """kill -9 of a node's slurmd, sometimes with its jobs, as when it loses power; it comes back some seconds later."""
    cluster = study.cluster
    nodes = sorted({job.node for job in study.queued() if job.state == "RUNNING"})
    if cluster is None or not nodes:
        return ""
    node, power, seconds = chance.choice(nodes), chance.random() < 0.5, chance.uniform(1.0, 5.0)
    cluster.kill_slurmd(node, steps=power)
    time.sleep(seconds)
    cluster.start(node)
    return f"{node}{' and its jobs' if power else ''} for {seconds:.1f} s"


def _kill_daemon(study: AttackedStudy, chance: random.Random, name: str) -> str:
    if study.cluster is None:
        return ""
    daemon, seconds = find_daemon(study.cluster.daemons[name]), chance.uniform(1.0, 8.0)
    if daemon is None or not kill(daemon, signal.SIGKILL):
        return ""
    time.sleep(seconds)
    study.cluster.start_all()
    return f"gone for {seconds:.1f} s"


def _says(study: AttackedStudy) -> str:
    return "goes on" if study.controller() else f"ended with {study.controllers[-1].returncode}"


LOCAL: dict[str, Fault] = {
    f.__name__.replace("_", "-"): f
    for f in (
        controller_killed, trial_killed, both_killed, controller_terminated, controller_interrupted, trial_terminated,
        trial_interrupted, controller_paused, trial_paused, full_disk, read_only, torn_lines, journal_cut,
        finished_damaged, checkpoint_truncated, checkpoint_flipped, result_truncated, result_flipped, teacher_flipped,
        clock_jump, duplicated_job, slow_files, two_launches, worker_killed, worker_paused, worker_out_of_memory,
        torn_inbox, second_worker, clock_ahead, clock_behind,
    )
}  # fmt: skip
"""By name, as tables have it."""
ON_SLURM: dict[str, Fault] = {
    **LOCAL, "slurmctld-killed": slurmctld_killed, "slurmdbd-killed": slurmdbd_killed, "slurmd-killed": slurmd_killed,
    "bad-node": bad_node, "stripped-environment": stripped_environment, "hanging-queue": hanging_queue,
}  # fmt: skip
NEEDS_DISK = frozenset({"full-disk", "read-only"})
"""Kinds that need a file system of the study's own, which only root can mount."""
NEEDS_TEACHER = frozenset({"teacher-flipped"})
