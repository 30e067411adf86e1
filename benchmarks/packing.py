"""Trials per hour for K trials at once through one worker: `python benchmarks/packing.py`, on a GPU if there is one.

Waves of K equal trials run on noise of UTD-MHAD's and CMU-MOSEI's shapes, for each K in turns: students without
distillation, with the studies' networks. With `--mps`, each wave also runs under NVIDIA's Multi-Process Service, which
lets kernels of several processes run at the same time. Memory is the proportional set size of the worker and its
trials; of a GPU, what is in use beyond what was in use before.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mmkd.config import DataSource, Distillation, Network, StudentConfig, Training, to_json
from mmkd.data import DatasetInfo, Split, read_info, write_dataset
from mmkd.distillation import complete
from mmkd.files import write_json, write_text
from mmkd.metrics_log import read_metrics
from mmkd.presets import PRESETS
from mmkd.rundir import TrialDir
from slurm.backend import Job
from slurm.local_backend import LocalBackend, usable_cores, visible_gpus
from sweeps.controller.jobs import last_words
from sweeps.controller.local_worker import TRIAL, LocalWorker


@dataclass(frozen=True)
class Shape:
    """Sizes of a data set, and the student that a study trains on it.

    Args:
        arrays: steps and features of each modality; the first is the student's.
        samples: those of train.
        classes: their number.
        network: the student's sizes.
        batch: samples of a step.
    """

    arrays: Mapping[str, tuple[int, int]]
    samples: int
    classes: int
    network: Network
    batch: int


SHAPES = {
    "utd-mhad": Shape(
        {"accelerometer": (32, 3), "gyroscope": (32, 3), "skeleton": (16, 60)}, 323, 27,
        Network(width=32, heads=4, layers=2, fusion_layers=1), 16,
    ),
    "mosei": Shape(
        {"language": (50, 300), "audio": (500, 74), "video": (500, 35)}, 2048, 7,
        Network.model_validate(PRESETS["paper_student"]), 64,
    ),
}  # fmt: skip


def make_data(path: Path, shape: Shape, samples: int) -> DatasetInfo:
    """A file of noise with these shapes; a third as many samples in valid and test."""
    rng, splits = np.random.default_rng(0), {}
    for name, size in {"train": samples, "valid": samples // 3 + 1, "test": samples // 3 + 1}.items():
        arrays = {m: rng.standard_normal((size, *wanted), np.float32) for m, wanted in shape.arrays.items()}
        splits[name] = Split(arrays=arrays, labels=np.arange(size) % shape.classes)
    names = [f"class {k}" for k in range(shape.classes)]
    write_dataset(path, splits, classes=names, source="synthetic (noise)", license="CC0-1.0")
    return read_info(path)


def make_job(
    trial: TrialDir, shape: Shape, info: DatasetInfo, at_once: int, options: argparse.Namespace, **variables: str
) -> Job:
    """A trial, one of `at_once`, and the job that runs it with these variables."""
    config = StudentConfig(
        data=DataSource(path=str(info.path), fingerprint=info.fingerprint),
        network=shape.network,
        training=Training(epochs=options.epochs, batch_size=shape.batch),
        seed=0,
        device=options.device,
        threads=max(1, usable_cores() // at_once),
        primary=next(iter(shape.arrays)),
        pairing="others",
        distillation=complete(Distillation(method="no_kd")),
    )
    trial.path.mkdir(parents=True)
    write_json(trial.config, to_json(config))
    write_text(trial.attempt, "1\n")
    variables |= {"OMP_NUM_THREADS": str(config.threads), "MMKD_TRIALS_PER_GPU": str(at_once)}
    return Job(trial.path.name, (*TRIAL, str(trial.path), "--attempt", "1"), trial.log(1), variables)


@contextmanager
def service(folder: Path) -> Iterator[dict[str, str]]:
    """Run NVIDIA's Multi-Process Service; the variables of its clients."""
    folder.mkdir()
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    environment = {**os.environ, **variables}
    subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, check=True)
    try:
        yield variables
    finally:
        subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, env=environment, check=False)


def gpu_megabytes(gpus: Sequence[str]) -> float:
    """Memory in use on these GPUs."""
    query = ("--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", ",".join(gpus))
    said = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, check=True).stdout if gpus else ""
    return sum(float(line) for line in said.splitlines())


def run_wave(backend: LocalBackend, jobs: Mapping[TrialDir, Job]) -> dict[str, float]:
    """Run the jobs at once: seconds by the clock, and MB of memory once all of them have trained an epoch.

    Raises:
        SystemExit: a trial failed.
    """
    memory: dict[str, float] = {}
    before, began = gpu_megabytes(backend.visible), time.perf_counter()
    running = {backend.submit(job): trial for trial, job in jobs.items()}
    while running:
        for handle, report in backend.poll(list(running)).items():
            if report.alive:
                continue
            trial = running.pop(handle)
            if not trial.result.exists():
                raise SystemExit(f"{report.message}: {last_words(trial.log(1), 3)}")
        if len(running) == len(jobs) and not memory and all(read_metrics(trial) for trial in jobs):
            processes = psutil.Process().children(recursive=True)
            memory["MB"] = sum(process.memory_full_info().pss for process in processes) / 1e6
            memory["GPU MB"] = gpu_megabytes(backend.visible) - before
        time.sleep(0.02)
    return {"seconds": time.perf_counter() - began, **memory}


def measure(name: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run all waves of one shape, in turns, through a worker that has read the data."""
    shape, found = SHAPES[name], []
    info = make_data(folder / f"{name}.h5", shape, options.samples or shape.samples)
    gpus = [] if options.device == "cpu" else visible_gpus()[:1]
    backend = LocalBackend(gpus, LocalWorker())
    warm = TrialDir(folder / f"{name}-warm")
    run_wave(backend, {warm: make_job(warm, shape, info, 1, options)})
    waves = itertools.product(range(options.repeat), options.at_once, (False, True) if options.mps else (False,))
    for turn, at_once, with_mps in waves:
        place, load = folder / f"{name}-{turn}-{at_once}-{with_mps:d}", os.getloadavg()[0]
        with service(folder / f"{place.name}-mps") if with_mps else nullcontext({}) as variables:
            trials = [TrialDir(place / f"{place.name}-{number}") for number in range(at_once)]
            jobs = {trial: make_job(trial, shape, info, at_once, options, **variables) for trial in trials}
            wave = run_wave(backend, jobs)
        found.append({"shape": name, "K": at_once, "MPS": with_mps, "load": round(load, 1), **wave})
        print(found[-1], file=sys.stderr, flush=True)
    return found


def show(waves: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the medians of each kind of wave."""
    table = Table("shape", "K", "MPS", "trials per hour", "of K = 1", "MB", "GPU MB", box=None)
    kinds: dict[tuple[str, int, bool], list[Mapping[str, Any]]] = {}
    for wave in waves:
        kinds.setdefault((wave["shape"], wave["K"], wave["MPS"]), []).append(wave)
    single: dict[str, float] = {}
    for (shape, at_once, with_mps), found in kinds.items():
        rate = 3600 * at_once / median(wave["seconds"] for wave in found)
        single.setdefault(shape, rate if at_once == 1 else math.nan)
        memory = [[wave[key] for wave in found if key in wave] for key in ("MB", "GPU MB")]
        shown = (f"{median(values):,.0f}" if values else "" for values in memory)
        ratio = f"{rate / single[shape]:.2f}"
        table.add_row(shape, str(at_once), "yes" if with_mps else "no", f"{rate:,.0f}", ratio, *shown)
    console.print(table)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="K")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="of each trial (%(default)s)")
    parser.add_argument("--samples", type=int, metavar="N", help="of train (323 and 2048)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="waves of each kind (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--mps", action="store_true", help="each wave also under NVIDIA MPS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all waves there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmkd-packing-") as folder:
        waves = [wave for name in options.shapes for wave in measure(name, options, Path(folder))]
    if options.json:
        write_json(options.json, waves)
    show(waves, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
