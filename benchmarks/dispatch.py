"""How busy a Slurm cluster's slots are kept: `python benchmarks/dispatch.py --hydra VENV`, on an idle cluster.

Trials of known, unlike lengths run through the real controller and Slurm, as one job each and in workers; they sleep.
Beside it stand the best possible asynchronous schedule, a loop of Optuna's ask and tell around submitit, Hydra's Optuna
sweeper with its submitit launcher, all on the same cluster with the same lengths, and HyperQueue without the cluster. A
cluster for it: `python -m slurm.devcluster up`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from peers import HYDRA, HYPERQUEUE, make_environment, run_hydra, run_hyperqueue, run_loop
from rich.console import Console
from rich.table import Table
from schedule import Slept, Traced, best_possible, draw_lengths, lost_time, share_busy, steps, upper_bound
from sleeping_trial import STARTED

from mmkd.attempts import read_attempts
from mmkd.errors import UserError
from mmkd.files import read_json, write_json
from mmkd.rundir import Root
from slurm.accounting import NoAnswer, ask
from slurm.backend import Handle, Job
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.slurm_workers import WorkerBackend
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.resolve import open_data
from sweeps.study_file import load_study

STUDY = """
title = "dispatch"
control = "no_kd"
[defaults]
sampler = "tpe"
seeds = 1
[defaults.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
[[rows]]
name = "no_kd"
method = "no_kd"
"""
STARTING = "starting.json"
"""The file with the seconds from the submission of the workers until the last of them had started."""
JOBS, WORKERS = "mmkd, one job per trial", "mmkd, workers"
TIMED = SlurmSettings(cpus=1, mem="200M", time="10", setup=(f"export {STARTED}=$(date +%s.%N)",))
"""Small jobs, whose scripts note when they begin."""
Way = Callable[[Path], tuple[float, Sequence[Slept]]]
"""Runs all trials in an empty directory, see `peers.run_hydra`."""


class SleepingJobs(SlurmBackend):
    """Slurm, but each trial's job sleeps for the trial's length instead of training; the final run not at all."""

    def __init__(self, lengths: Sequence[float]) -> None:
        super().__init__(TIMED)
        self.lengths = lengths
        self.queued: dict[str, float] = {}
        """When sbatch returned, by job name."""

    def submit(self, job: Job) -> Handle:
        """See `Backend`."""
        program = str(Path(__file__).with_name("sleeping_trial.py"))
        command = (sys.executable, program, *job.command[3:], "--seconds", f"{_seconds(job, self.lengths):.3f}")
        handle = super().submit(replace(job, command=command))
        self.queued[job.name] = time.time()
        return handle


class SleepingWorkers(WorkerBackend):
    """Workers whose trials sleep, see `SleepingJobs`: together they have `slots` GPUs, one for each trial.

    Raises:
        UserError: the slots cannot be divided by the number of workers.
    """

    def __init__(self, lengths: Sequence[float], workers: int, slots: int, root: Root) -> None:
        if slots % workers:
            raise UserError(f"--workers {workers}: the cluster's {slots} GPUs cannot be divided among them")
        each = slots // workers
        resources = {"workers": workers, "trials_per_worker": each, "gpus": str(each), "cpus": each, "mem": "3G"}
        super().__init__(TIMED.model_copy(update=resources), root, "dispatch", {})
        self.lengths = lengths
        self.queued: dict[str, float] = {}
        """When the trial was assigned, by job name."""

    def submit(self, job: Job) -> Handle:
        """See `Backend`."""
        handle = super().submit(replace(job, command=(*job.command, "--seconds", f"{_seconds(job, self.lengths):.3f}")))
        self.queued[job.name] = time.time()
        return handle

    def _job(self, copies: int) -> Job:
        job = super()._job(copies)
        program = str(Path(__file__).with_name("sleeping_worker.py"))
        return replace(job, command=(sys.executable, program, *job.command[3:]))


def _seconds(job: Job, lengths: Sequence[float]) -> float:
    """How long a job sleeps."""
    directory = Path(job.command[3])
    return lengths[int(directory.name)] if directory.parent.name == "trials" else 0.0


def run_jobs(lengths: Sequence[float], parallel: int, directory: Path) -> tuple[float, list[Traced]]:
    """Tune with mmkd's controller, `parallel` jobs at once, waiting ones too; see `run_hydra` for what it returns."""
    return _tune(lengths, parallel, lambda root: SleepingJobs(lengths), directory)


def run_workers(lengths: Sequence[float], workers: int, slots: int, directory: Path) -> tuple[float, list[Traced]]:
    """Tune with mmkd's controller, in workers that have all started; `starting` of a run is how long that took."""

    def start(root: Root) -> SleepingWorkers:
        began, backend = time.time(), SleepingWorkers(lengths, workers, slots, root)
        while backend.slots(lambda: slots) < slots:
            time.sleep(0.05)
        write_json(directory / STARTING, time.time() - began)
        return backend

    return _tune(lengths, slots, start, directory)


def _tune(
    lengths: Sequence[float], parallel: int, start: Callable[[Root], SleepingJobs | SleepingWorkers], directory: Path
) -> tuple[float, list[Traced]]:
    study_file = directory / "dispatch.toml"
    study_file.write_text(STUDY)
    study, root = load_study(study_file, [("defaults.trials", len(lengths))]), Root(directory / "runs")
    info = open_data(study, root)
    rows = plan(study, study_file, load_profile("auto", info.source)[1], info, root, Machine(info.path, 1, "auto"))
    backend = start(root)
    work = RowWork(rows[0], parallel, study_file)
    try:
        with (directory / "log.txt").open("w") as log, Reporter(Console(file=log)) as reporter:
            Controller([work], root, backend, parallel, reporter).run()
    finally:
        work.close()
    traced = [_trace(work, backend.queued, number) for number in range(len(lengths))]
    return min(t.announced for t in traced), traced


def _trace(work: RowWork, queued: Mapping[str, float], number: int) -> Traced:
    attempts = read_attempts(work.directory.trial(number))
    if [a.end for a in attempts] != ["complete"]:
        raise UserError(f"trial {number}: {[a.end for a in attempts]}; what disturbed it? See the cluster's logs")
    sampled, ours = work.tuning.trials()[number].datetime_start, attempts[0].submitted
    job = attempts[0].ran.model_dump()  # with the fields that only a sleeping trial writes
    assert sampled is not None
    assert ours.submitted is not None
    assert ours.ended is not None
    return Traced(
        number=number,
        slot=job["slot"],
        sampled=sampled.timestamp(),
        announced=ours.submitted,
        queued=queued[ours.worker or ours.name],
        script=job["script"],
        began=job["began"],
        ended=job["slept_until"],
        written=job["ended"],
        noticed=ours.ended,
    )


def count_slots() -> int:
    """GPUs of the cluster.

    Raises:
        UserError: it is not idle, or has none.
    """
    if jobs := ask("squeue", "-h").splitlines():
        raise UserError(f"the cluster has {len(jobs)} jobs in its queue: wait until it is idle (squeue)")
    nodes = set(ask("sinfo", "-h", "-N", "-o", "%N %G").splitlines())
    gpus = sum(int(number) for node in nodes for number in re.findall(r"gpu:(?:\w+:)?(\d+)", node))
    if not gpus:
        raise UserError("the cluster has no GPUs (sinfo -N -o '%N %G'): each trial asks for one")
    return gpus


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run each way in turn, `options.repeat` times; all that was seen, as JSON."""
    slots = count_slots()
    lengths = draw_lengths(options.trials, options.shortest, options.longest, options.seed)
    ways: dict[str, Way] = {
        JOBS: lambda directory: run_jobs(lengths, options.parallel, directory),
        WORKERS: lambda directory: run_workers(lengths, options.workers, slots, directory),
        "submitit in a loop": lambda directory: run_loop(lengths, options.parallel, directory),
    }
    if options.hydra:
        python = make_environment(options.hydra.absolute(), HYDRA)
        for batch in sorted({slots, options.parallel}):
            ways[f"Hydra, batches of {batch}"] = partial(run_hydra, python, lengths, batch)
    if options.hyperqueue:
        python = make_environment(options.hyperqueue.absolute(), HYPERQUEUE)
        ways["HyperQueue, without Slurm"] = partial(run_hyperqueue, python, lengths, slots, options.parallel)
    wanted = options.ways or [""]
    ways = {name: way for name, way in ways.items() if any(word in name for word in wanted)}
    runs = []
    for _ in range(options.repeat):
        for name, way in ways.items():
            wait_until_idle()
            runs.append({"way": name, **measure_once(way, slots)})
            print(f"{name}: {runs[-1]['busy']:.3f} busy, load {runs[-1]['load']}", file=sys.stderr, flush=True)
    return {
        "trials": options.trials,
        "lengths": [options.shortest, options.longest],
        "seed": options.seed,
        "slots": slots,
        "parallel": options.parallel,
        "workers": options.workers,
        "cores": os.cpu_count(),
        "best possible": best_possible(lengths, slots),
        "upper bound": upper_bound(lengths, slots),
        "median": {name: median(run["busy"] for run in runs if run["way"] == name) for name in ways},
        "runs": runs,
    }


def measure_once(way: Way, slots: int) -> dict[str, Any]:
    """Run one way in a directory by itself, and reckon."""
    directory = Path(tempfile.mkdtemp(prefix="mmkd-dispatch-"))
    load = os.getloadavg()[0]
    first, trials = way(directory)
    seen: dict[str, Any] = {
        "busy": share_busy(first, trials, slots),
        "makespan": max(t.ended for t in trials) - first,
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }
    if starting := read_json(directory / STARTING):
        seen["starting"] = round(starting, 2)
        seen["busy with the start"] = share_busy(first - starting, trials, slots)
    traced = [t for t in trials if isinstance(t, Traced)]
    if traced:
        seen["spent"] = lost_time(first, traced, slots)
        seen["steps"] = {name: [round(s, 4) for s in seconds] for name, seconds in steps(traced).items()}
    shutil.rmtree(directory)  # kept where a run failed: its logs say why
    return seen


def wait_until_idle() -> None:
    """Wait until the jobs of the way before have left the cluster."""
    while ask("squeue", "-h"):
        time.sleep(0.5)


def show(seen: dict[str, Any], console: Console) -> None:
    """Print what was seen: how busy the slots were each way, and where our time went."""
    shortest, longest = seen["lengths"]
    console.print(
        f"{seen['trials']} trials of {shortest:g} to {longest:g} s (seed {seen['seed']}), {seen['slots']} slots, up to "
        f"{seen['parallel']} jobs at once, waiting ones too; {seen['cores']} cores",
        highlight=False,
        soft_wrap=True,
    )
    busy = Table("slots busy", "median", "of the best", "each run", box=None)
    best = seen["best possible"]
    busy.add_row("no schedule can exceed", f"{seen['upper bound']:.3f}")
    busy.add_row("best in this order", f"{best:.3f}")
    for name, share in seen["median"].items():
        each = ", ".join(f"{run['busy']:.3f}" for run in seen["runs"] if run["way"] == name)
        busy.add_row(name, f"{share:.3f}", f"{share / best:.1%}", each)
    console.print(busy)
    for name in (JOBS, WORKERS):
        if ours := [run for run in seen["runs"] if run["way"] == name]:
            show_ours(name, ours, console)


def show_ours(name: str, runs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print where the time of mmkd's slots and trials went in these runs."""
    spent = Table(f"slots: {name}", "share of their time (median)", box=None)
    for what in runs[0]["spent"]:
        spent.add_row(what, f"{median(run['spent'][what] for run in runs):.3f}")
    console.print(spent)
    trials = Table(f"trials: {name}", "median s", "longest s", box=None)
    for what in runs[0]["steps"]:
        seconds = [s for run in runs for s in run["steps"][what]]
        trials.add_row(what, f"{median(seconds):.3f}", f"{max(seconds):.3f}")
    console.print(trials)
    if "starting" in runs[0]:
        seconds, busy = (median(run[key] for run in runs) for key in ("starting", "busy with the start"))
        console.print(f"the workers had started after {seconds:.1f} s; with that time {busy:.3f} busy", highlight=False)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=48, metavar="N", help="default: %(default)s")
    parser.add_argument("--shortest", type=float, default=2.0, metavar="S", help="seconds (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=12.0, metavar="S", help="seconds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the lengths (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=16, metavar="N", help="jobs at once (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each way so often")
    parser.add_argument(
        "--workers", type=int, default=4, metavar="N", help="with equal shares of the GPUs (%(default)s)"
    )
    parser.add_argument("--ways", nargs="+", metavar="WORD", help="only those whose names contain one of the words")
    parser.add_argument("--hydra", type=Path, metavar="VENV", help="Hydra too, in this environment; made if not there")
    parser.add_argument("--hyperqueue", type=Path, metavar="VENV", help="HyperQueue too, likewise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was seen there")
    options = parser.parse_args()
    try:
        seen = measure(options)
    except (UserError, NoAnswer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_json(options.json, seen)
    show(seen, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
