"""Cost of starting local trials, forked by a warm worker and as processes: `python benchmarks/worker_start.py`.

Trials of one epoch on a tiny data set run one after the other in both ways, in turns. Their processor time is nearly
all start. Then four trials run at once in each way, on data of `--megabytes`, and their memory is compared: the
proportional set size counts a page that n processes share as 1/n in each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mmkd.config import DataSource, Network, TeacherConfig, Training, to_json
from mmkd.data import Split, read_info, write_dataset
from mmkd.files import write_json, write_text
from mmkd.metrics_log import read_metrics
from mmkd.rundir import TrialDir
from slurm.backend import Job
from slurm.local_backend import LocalBackend, Process, start_process
from sweeps.controller.local_worker import LocalWorker

Start = Callable[[Job, Mapping[str, str]], Process]
TINY = {"width": 8, "heads": 2, "layers": 1, "fusion_layers": 1}


def make_data(path: Path, megabytes: float) -> None:
    """Random data of about that size in memory, two modalities of 16 steps and 256 features.

    Raises:
        SystemExit: four processes that hold them would fill this machine's memory.
    """
    if 5e6 * megabytes > psutil.virtual_memory().available:
        raise SystemExit(f"--megabytes {megabytes:g}: {5e-3 * megabytes:.0f} GB of memory must be free")
    rng = np.random.default_rng(0)
    whole = max(round(megabytes * 1e6 / (4 * 2 * 16 * 256)), 20)
    splits = {}
    for name, samples in (("train", whole * 8 // 10), ("valid", whole // 10), ("test", whole // 10)):
        arrays = {m: rng.standard_normal((samples, 16, 256), np.float32) for m in ("video", "audio")}
        labels = np.arange(samples) % 2
        splits[name] = Split(arrays=arrays, labels=labels, ids=[f"{name}{n}" for n in range(samples)])
    write_dataset(path, splits, classes=("a", "b"), source="random (benchmark)", license="none")


def make_job(directory: Path, number: int, data: Path, fingerprint: str, epochs: int) -> tuple[TrialDir, Job]:
    """A teacher's trial of its own, and the job that runs it."""
    config = TeacherConfig(
        data=DataSource(path=str(data), fingerprint=fingerprint),
        network=Network(**TINY),
        training=Training(epochs=epochs, batch_size=250),
        seed=number,
        device="cpu",
    )
    trial = TrialDir(directory / "teachers" / f"{number:016}")
    trial.path.mkdir(parents=True)
    write_json(trial.config, to_json(config))
    write_text(trial.attempt, "1\n")
    command = (sys.executable, "-m", "mmkd.trial", str(trial.path), "--attempt", "1")
    return trial, Job(f"t{number}", command, trial.log(1), {"OMP_NUM_THREADS": "1"})


def spent() -> float:
    """Processor seconds of this process's ended children and of those that run, with their own."""
    times = [psutil.Process().cpu_times()]
    own = times[0].children_user + times[0].children_system
    for child in psutil.Process().children():
        t = child.cpu_times()
        own += t.user + t.system + t.children_user + t.children_system
    return own


def run_one(start: Start, job: Job) -> tuple[float, float]:
    """Processor seconds and seconds by the clock of a job from its submission to its end."""
    backend = LocalBackend(start=start)
    before, began = spent(), time.perf_counter()
    handle = backend.submit(job)
    while (report := backend.poll([handle])[handle]).alive:
        time.sleep(0.005)
    if report.failure:
        raise SystemExit(f"{job.log}: {report.message}")
    return spent() - before, time.perf_counter() - began


def memory(start: Start, jobs: list[tuple[TrialDir, Job]]) -> float:
    """Proportional set size in MB of four trials, and of the worker that forked them, once all of them train."""
    backend = LocalBackend(start=start)
    handles = [backend.submit(job) for _, job in jobs]
    while not all(read_metrics(trial) for trial, _ in jobs):
        for (_, job), report in zip(jobs, backend.poll(handles).values(), strict=True):
            if not report.alive:
                raise SystemExit(f"{job.log}: {report.message}")
        time.sleep(0.1)
    processes = psutil.Process().children(recursive=True)
    taken = sum(process.memory_full_info().pss for process in processes)
    backend.cancel(handles)
    while any(report.alive for report in backend.poll(handles).values()):
        time.sleep(0.05)
    return taken / 1e6


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6, metavar="N", help="of each way (6)")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1, 2000], help="of data, for memory")
    options = parser.parse_args()
    worker = LocalWorker()
    ways: dict[str, Start] = {"process": start_process, "worker": worker}
    with tempfile.TemporaryDirectory(prefix="mmkd-start-") as name:
        directory, number = Path(name), 0
        tiny = directory / "tiny.h5"
        make_data(tiny, 0.5)
        fingerprint = read_info(tiny).fingerprint
        costs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(options.trials + 1):
            for way, start in ways.items():
                number += 1
                cost = run_one(start, make_job(directory, number, tiny, fingerprint, 1)[1])
                if turn:  # the first starts the worker
                    costs[way].append(cost)
        table = Table("", "CPU s per trial", "s per trial", title="start, one epoch of nothing, end", box=None)
        for way, found in costs.items():
            table.add_row(way, *(f"{median(values):.2f}" for values in zip(*found, strict=True)))
        Console().print(table)
        table = Table("data, MB", *ways, "ratio", title="memory of four trials at once, MB", box=None)
        for megabytes in options.megabytes:
            data = directory / f"{megabytes:g}.h5"
            make_data(data, megabytes)
            fingerprint = read_info(data).fingerprint
            taken = []
            for start in (start_process, LocalWorker()):
                jobs = [make_job(directory, number + k, data, fingerprint, 10_000) for k in range(1, 5)]
                number += 4
                taken.append(memory(start, jobs))
            table.add_row(f"{megabytes:g}", *(f"{value:,.0f}" for value in taken), f"{taken[1] / taken[0]:.2f}")
            data.unlink()
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
