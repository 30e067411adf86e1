"""What asking costs as trials add up, by sampler: `python benchmarks/asking.py`.

A row of four hyperparameters (CRD's) has so many finished trials and 16 running ones; its journal is opened, as a
relaunch does it, and a few more trials are sampled and reported. Seconds are processor time, unless
they say otherwise.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

from optuna.samplers import RandomSampler
from optuna.study import create_study
from optuna.trial import TrialState, create_trial
from rich.console import Console
from rich.table import Table

from mmkd.lock import FileLock
from mmkd.rundir import Root
from sweeps.controller import optuna_study
from sweeps.controller.optuna_study import Tuning
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.resolve import open_data
from sweeps.rows import Row
from sweeps.study_file import load_study

STUDY = """
title = "asking"
control = "crd"
[defaults]
trials = 1_000_000
[defaults.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
alpha = { low = 0.0, high = 1.0 }
beta = { low = 0.0, high = 1.0 }
temperature = { low = 0.05, high = 1.0, log = true }
[[rows]]
name = "crd"
method = "crd"
level = "attention_maps"
"""
RUNNING = 16
ASKED = 5
"""Trials that are sampled in each case; the median counts."""
SAMPLERS = {"random": math.inf, "tpe": math.inf, "gp": 1000}
"""And the most trials that each is measured with; a Gaussian process would take minutes a trial after that."""


def fill(row: Row, finished: int) -> None:
    """Put `finished` random trials and some running ones into the row's journal; its values are noisy."""
    draw = create_study(sampler=RandomSampler(seed=0))
    with FileLock(row.directory.lock) as lock, patch("os.fsync"):
        filled = Tuning(row, lock, 1)
        for number in range(finished + RUNNING):
            parameters = draw.ask(filled.distributions).params
            noise = math.sin(1e4 * parameters["alpha"])
            value = (math.log10(parameters["learning_rate"]) + 3) ** 2 + parameters["beta"] + 0.1 * noise
            done = number < finished
            filled.study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if done else TrialState.RUNNING,
                    value=value if done else None,
                    params=parameters,
                    distributions=filled.distributions,
                )
            )


def cost(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(row: Row, finished: int) -> dict[str, float]:
    """Seconds to open the journal of `finished` trials, and to ask and to tell one."""
    row.directory.path.mkdir(parents=True)
    fill(row, finished)
    with FileLock(row.directory.lock) as lock:
        opened: list[Tuning] = []
        opening = cost(lambda: opened.append(Tuning(row, lock, 1)))
        asks, waits, tells = [], [], []
        for number in range(finished + RUNNING, finished + RUNNING + ASKED):
            began = time.monotonic()
            asks.append(cost(opened[0].ask))
            waits.append(time.monotonic() - began)
            tells.append(cost(partial(opened[0].tell, number, 1.0)))
    shutil.rmtree(row.directory.path)
    return {"open": opening, "ask": median(asks), "ask, by the clock": median(waits), "tell": median(tells)}


def make_row(sampler: str, directory: Path) -> Row:
    """The row with a sampler."""
    study_file = directory / "asking.toml"
    study_file.write_text(STUDY)
    study, root = load_study(study_file, [("defaults.sampler", sampler)]), Root(directory / "runs")
    info = open_data(study, root)
    machine = Machine(info.path, 1, "cpu")
    return plan(study, study_file, load_profile("auto", info.source)[1], info, root, machine)[0]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = [10, 100, 200, 500, 1000, 3000, 10_000]
    parser.add_argument("--trials", type=int, nargs="+", default=counts, metavar="N", help="finished trials")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mmkd-asking-"))
    table = Table("sampler", "trials", "open s", "ask ms", "ask ms, by the clock", "tell ms", box=None)
    try:
        measure(make_row("gp", directory), 20)  # imports
        for sampler, most in SAMPLERS.items():
            row = make_row(sampler, directory)
            for finished in (n for n in options.trials if n <= most):
                # What a Gaussian process would cost beyond its bound, too.
                with patch.object(optuna_study, "GP_TRIALS", math.inf):
                    seen = measure(row, finished)
                milliseconds = (f"{1e3 * seen[what]:.1f}" for what in ("ask", "ask, by the clock", "tell"))
                table.add_row(sampler, f"{finished}", f"{seen['open']:.2f}", *milliseconds)
    finally:
        shutil.rmtree(directory)
    console = Console(width=100)
    console.print(table)
    console.print(f"From trial {optuna_study.GP_TRIALS} on, TPE takes over from the Gaussian process.", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
