"""How long `analysis` takes over many trials, beside a loop of pandas over the same files.

    python benchmarks/analysis_scale.py --directory DIR [--trials 10000] [--epochs 100]

The first run makes DIR/runs through the writers that jobs use, which takes minutes; it may then be run again. Each
measurement is a separate process, imports included, with the files in the operating system's memory: seconds by the
clock and of CPU (on a busy machine look at these), and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from mmkd.attempts import record_run, record_submission
from mmkd.config import ALGORITHM_VERSION, DataSource, Distillation, Network, StudentConfig, Training, to_json
from mmkd.files import write_json
from mmkd.metrics import classification_metrics
from mmkd.records import RowData, RowIdentity, RowRecord, WinnerRecord, write_record
from mmkd.result_file import Predictions, Result, Status, write_result
from mmkd.rundir import Root, RowDir, TrialDir

CLASSES, VALID, TEST, SEEDS, A_ROW = 7, 200, 400, 5, 500


def make_root(root: Root, trials: int, epochs: int) -> None:
    """Rows of 495 tuning trials and 5 final runs each, with real result files."""
    rng = np.random.default_rng(0)
    entries = []
    for number in range(trials // A_ROW):
        row = root.row(f"method{number:03}", f"{number:08x}")
        make_row(row, number, epochs, rng)
        budgets = {"trials": A_ROW - SEEDS, "seeds": list(range(1, SEEDS + 1)), "teachers": []}
        entries.append(
            {"name": f"m{number}", "label": f"Method {number}", "group": None, "directory": row.path.name, **budgets}
        )
        print(f"\r{(number + 1) * A_ROW} of {trials} trials made", end="", flush=True)
    root.study("scale").parent.mkdir()
    write_json(root.study("scale"), {"name": "scale", "title": "Scale", "control": "m0", "rows": entries})
    print()


def make_row(row: RowDir, number: int, epochs: int, rng: np.random.Generator) -> None:
    """One row, tuned, with its final runs."""
    row.path.mkdir(parents=True)
    record = RowRecord(
        digest=f"{number:064x}",
        identity=RowIdentity(
            algorithm=ALGORITHM_VERSION,
            data="f" * 64,
            primary="video",
            pairing="others",
            method="kd",
            level=None,
            settings={},
            space={},
            fixed={},
            sampler="random",
            training={},
            student={},
            teacher=None,
            selection="loss",
        ),
        data=RowData(path="d.h5", source="made up", fingerprint="f" * 64, modalities=("video",), classes=("a", "b")),
    )
    write_record(row.row, record)
    rates = 10 ** rng.uniform(-4, -2, A_ROW - SEEDS)
    losses = [make_trial(row.trial(k), float(rate), 0, epochs, rng) for k, rate in enumerate(rates)]
    best = int(np.argmin(losses))
    confirm = {seed: row.final_run(seed, f"{number:08x}") for seed in range(1, SEEDS + 1)}
    for seed, trial in confirm.items():
        make_trial(trial, float(rates[best]), seed, epochs, rng)
    record_of_winner = WinnerRecord(
        trial=best,
        value=losses[best],
        params={"learning_rate": float(rates[best])},
        trials=A_ROW - SEEDS,
        numbers=A_ROW - SEEDS,
        selection="loss",
        seeds=tuple(confirm),
        confirm={seed: trial.path.name for seed, trial in confirm.items()},
    )
    write_record(row.winner, record_of_winner)


def make_trial(trial: TrialDir, rate: float, seed: int, epochs: int, rng: np.random.Generator) -> float:
    """A finished trial; its validation loss."""
    config = StudentConfig(
        data=DataSource(path="data.h5", fingerprint="f" * 64),
        network=Network(),
        training=Training(epochs=epochs, learning_rate=rate),
        seed=seed,
        evaluate_test=seed > 0,
        primary="video",
        pairing="others",
        distillation=Distillation(method="kd"),
    )
    names = ("learning_rate", "train_classification", "train_distillation", "valid_loss", "valid_accuracy")
    curves = {name: np.exp(-rng.random(epochs)).tolist() for name in (*names, "valid_weighted_f1", "valid_macro_f1")}
    splits = {"valid": VALID, "test": TEST} if seed else {"valid": VALID}
    outputs = {split: make_outputs(samples, rng) for split, samples in splits.items()}
    metrics = {split: classification_metrics(o.logits, o.labels, 0) for split, o in outputs.items()}
    trial.path.mkdir(parents=True)
    write_json(trial.config, to_json(config))
    trial.attempt.write_text("1")
    lines = [{"epoch": k + 1, **{name: series[k] for name, series in curves.items()}} for k in range(epochs)]
    trial.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = Result(
        Status.COMPLETE, to_json(config), best_epoch=epochs, epochs=epochs, seconds=60.0, parameters=675_204,
        device="cpu", weights_sha256=rng.bytes(32).hex(), metrics=metrics, curves=curves, predictions=outputs,
    )  # fmt: skip
    write_result(trial, result)
    versions = {"mmkd": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "h5py": "3.16.0"}
    story = {"attempt": 1, "started": 1.0, "host": "node1", "pid": 1, "python": "3.11.7", "versions": versions}
    record_run(trial, 1, **story, git={"commit": "a" * 40, "diff": ""}, end="complete", message="", seconds=61.0)
    record_submission(trial, 1, attempt=1, backend="slurm", job="1", submitted=1.0, end="complete", gpu_seconds=61.0)
    return metrics["valid"]["loss"]


def make_outputs(samples: int, rng: np.random.Generator) -> Predictions:
    """Random outputs that are right more often than not."""
    labels = rng.integers(0, CLASSES, samples)
    logits = rng.normal(size=(samples, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    return Predictions(logits.astype(np.float32), labels, [f"sample{k}" for k in range(samples)])


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
    (root / ".cache" / "analysis.h5").unlink(missing_ok=True)
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
