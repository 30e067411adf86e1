"""How long `analysis` takes over many trials, beside a loop of pandas over the same files.

    python benchmarks/analysis_scale.py --directory DIR [--trials 10000] [--epochs 100]

The first run makes DIR/runs with the real controller and the writers that jobs use, which takes minutes; it may then be
run again. Each measurement is a separate process, imports included, with the files in the operating system's memory:
seconds by the clock and of CPU (on a busy machine look at these), and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pandas as pd
from rich.console import Console

from mmkd.attempts import record_run
from mmkd.config import from_json, to_json
from mmkd.files import read_json
from mmkd.metrics import classification_metrics
from mmkd.result_file import Predictions, Result, Status, weights_checksum, write_result
from mmkd.rundir import Root, TrialDir
from slurm.backend import Backend, Handle, Job, Report
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.launched_study import record_study
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.resolve import open_data
from sweeps.study_file import load_study

CLASSES, VALID, TEST, SEEDS, A_ROW = 7, 200, 400, 5, 500
HEAD = f"""
title = "Scale"
data = "synthetic:small"
control = "m0"
[defaults]
trials = {A_ROW - SEEDS}
seeds = {SEEDS}
sampler = "random"
[defaults.space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
"""
STUDY_OPTIONS = ("--as", "scale", "--cluster", "local", "--device", "cpu")


def study_text(rows: int) -> str:
    """The study file: rows that differ in the batch size."""
    lines = [
        f'[[rows]]\nname = "m{k}"\nmethod = "no_kd"\ntraining = {{ batch_size = {16 + k} }}\n' for k in range(rows)
    ]
    return HEAD + "".join(lines)


def study_file(root: Root) -> Path:
    """The study file, beside the root: with it and `STUDY_OPTIONS` the study can be launched again."""
    return root.path.parent / "scale.toml"


class AtOnce(Backend):
    """A backend whose jobs write a real result as they are submitted."""

    name, prompt, gpus = "at once", True, 0

    def __init__(self, epochs: int) -> None:
        self.epochs, self.rng = epochs, np.random.default_rng(0)

    def submit(self, job: Job) -> Handle:
        """Run it."""
        finish_trial(TrialDir(Path(job.command[3])), self.epochs, self.rng)
        return Handle(job.name, job.name)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        """All have ended."""
        return {handle: Report(False) for handle in handles}

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        """Nothing."""
        return {}

    def cancel(self, handles: Collection[Handle]) -> None:
        """Nothing runs."""


def make_root(root: Root, trials: int, epochs: int) -> None:
    """A finished study: rows of 495 tuning trials and 5 final runs each, by the real controller."""
    path = study_file(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(study_text(trials // A_ROW))
    study = load_study(path, [])
    info = open_data(study, root)
    rows = plan(study, path, load_profile("auto", info.source)[1], info, root, Machine(info.path, 1, "cpu"))
    record_study(root, "scale", study, rows)
    for number, row in enumerate(rows, start=1):
        work = RowWork(row, 50, path)
        with (
            patch("os.fsync"),
            Path(os.devnull).open("w") as nowhere,
            Reporter(Console(file=nowhere)) as reporter,
        ):
            Controller([work], root, AtOnce(epochs), 50, reporter, interval=0.0).run()
        work.close()
        print(f"\r{number * A_ROW} of {trials} trials made", end="", flush=True)
    print()


def finish_trial(trial: TrialDir, epochs: int, rng: np.random.Generator) -> None:
    """Write what the job of a trial's first attempt writes, at random."""
    config = from_json(read_json(trial.config), trial.config)
    names = ("learning_rate", "train_classification", "train_distillation", "valid_loss", "valid_accuracy")
    curves = {name: np.exp(-rng.random(epochs)).tolist() for name in (*names, "valid_weighted_f1", "valid_macro_f1")}
    splits = {"valid": VALID, "test": TEST} if config.evaluate_test else {"valid": VALID}
    outputs = {split: make_outputs(samples, rng) for split, samples in splits.items()}
    metrics = {split: classification_metrics(o.logits, o.labels, 0) for split, o in outputs.items()}
    versions = {"mmkd": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "h5py": "3.16.0"}
    story = {"attempt": 1, "started": 1.0, "host": "node1", "pid": 1, "python": "3.11.7", "versions": versions}
    lines = [{"epoch": k + 1, **{name: series[k] for name, series in curves.items()}} for k in range(epochs)]
    trial.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trial.weights.write_bytes(rng.bytes(1000))
    result = Result(
        Status.COMPLETE, to_json(config), best_epoch=epochs, epochs=epochs, seconds=60.0, parameters=675_204,
        device="cpu", weights_sha256=weights_checksum(trial), metrics=metrics, curves=curves, predictions=outputs,
    )  # fmt: skip
    write_result(trial, result)
    record_run(trial, 1, **story, git={"commit": "a" * 40, "diff": ""}, end="complete", ended=62.0, seconds=61.0)


def make_outputs(samples: int, rng: np.random.Generator) -> Predictions:
    """Random outputs that are right more often than not."""
    labels = rng.integers(0, CLASSES, samples)
    logits = rng.normal(size=(samples, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    return Predictions(logits.astype(np.float32), labels, [f"sample{k}" for k in range(samples)])


def remove_lines(root: Root) -> None:
    """Remove the rows' `finished.jsonl`, as in a root that was made before there were any."""
    for row in root.rows():
        row.finished.unlink(missing_ok=True)


def naive(root: Path) -> int:
    """What one would write by hand: each file opened, a frame each, all of them concatenated; no configurations."""
    scalars, curves = [], []
    for path in sorted(root.glob("rows/*/*/*/result.h5")):
        with h5py.File(path) as file:
            line = {"path": str(path), **file.attrs}
            for split, group in file["metrics"].items():
                line |= {f"{split}_{name}": value for name, value in group.attrs.items()}
            scalars.append(line)
            curves.append(pd.DataFrame({n: c[()] for n, c in file["curves"].items()}).assign(path=str(path)))
    return len(pd.DataFrame(scalars)) + len(pd.concat(curves))


def measure(what: str, root: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory (MiB) of one of the measurements, in this process."""
    started, cpu = time.perf_counter(), time.process_time()
    if what == "naive":
        naive(root)
    else:
        import analysis

        runs = analysis.load(root)
        if what == "table":
            analysis.to_text(analysis.table(runs, "scale"))
    spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    return {**spent, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Make the root if it is not there, and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.directory / "runs"
    if options.measure:
        print(json.dumps(measure(options.measure, root)))
        return
    if not (root / "studies").exists():
        make_root(Root(root), options.trials, options.epochs)
    remove_lines(Root(root))
    said = {
        "cold": "load, no cache yet",
        "cached": "load, cached",
        "table": "load, cached, and table",
        "naive": "naive",
    }
    for what, words in said.items():
        command = [sys.executable, __file__, "--directory", str(options.directory), "--measure", what]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{words:26} {found['seconds']:7.2f} s {found['cpu']:7.2f} s of CPU {found['mib']:7.0f} MiB")


if __name__ == "__main__":
    main()
