"""What a study that was disturbed must have in common with one that was not."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py

from mmkd.attempts import Attempt, read_attempts
from mmkd.metrics_log import read_metrics
from mmkd.rundir import Root, TrialDir

STATE_SET = 6
"""What Optuna's journal calls an entry that sets a trial's state."""
STATES = {1: "complete", 2: "pruned", 3: "failed"}
"""Those of a trial that has been reported."""

PATIENCE = 900.0
"""Seconds after which what is waited for will not come: generous, for the machine may have much else to do."""


class Stuck(Exception):
    """A study does not come to its end; the message says where it hangs."""


def wait_for(what: str, is_so: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Look every 0.1 s until it is so.

    Raises:
        Stuck: it did not come to that.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise Stuck(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def numbers(root: Path) -> dict[str, object]:
    """Every number of every result under a root, costs aside, by the trial's directory and the value's name."""
    values: dict[str, object] = {}
    for path in sorted(root.glob("**/result.h5")):
        directory = str(path.parent.relative_to(root))
        with h5py.File(path) as file:
            names: list[str] = []
            file.visit(names.append)
            for name in names:
                values |= {f"{directory}:{name}@{key}": value for key, value in file[name].attrs.items()}
                if isinstance(file[name], h5py.Dataset):
                    values[f"{directory}:{name}"] = file[name][()].tolist()
            kept = ("status", "best_epoch", "epochs", "weights_sha256")
            values |= {f"{directory}@{key}": file.attrs[key] for key in kept}
    return values


def trial_dirs(root: Path) -> list[TrialDir]:
    """All trials, final runs and teachers under a root."""
    here = Root(root)
    return [*here.teachers(), *(d for row in here.rows() for d in (*row.trials(), *row.final_runs()))]


def attempts(root: Path) -> list[Attempt]:
    """All attempts under a root."""
    return [attempt for directory in trial_dirs(root) for attempt in read_attempts(directory)]


def reported(root: Path) -> dict[str, list[str]]:
    """By row and number, what was reported to Optuna of each trial that was sampled: once is right."""
    said: dict[str, list[str]] = {}
    for journal in sorted(root.glob("rows/*/journal.log")):
        for entry in map(json.loads, journal.read_text().splitlines()):
            if entry["op_code"] == STATE_SET:
                trial = said.setdefault(f"{journal.parent.name}/{entry['trial_id']}", [])
                trial += [STATES[entry["state"]]] if entry["state"] in STATES else []
    return said


def broken(root: Path, undisturbed: Path) -> list[str]:
    """What is wrong with a root whose study is done, a line each: trials lost or doubled, other numbers, leftovers."""
    wrong = []
    expected, found = numbers(undisturbed), numbers(root)
    wrong += [f"no {key}" for key in expected.keys() - found.keys()]
    wrong += [f"{key} has no counterpart" for key in found.keys() - expected.keys()]
    wrong += [f"{key} differs" for key in expected.keys() & found.keys() if expected[key] != found[key]]
    if reported(root) != reported(undisturbed):
        wrong.append(f"reported {reported(root)}, undisturbed {reported(undisturbed)}")
    wrong += [f"trial {trial} was reported as {said}" for trial, said in reported(root).items() if len(said) != 1]
    for directory in trial_dirs(root):
        ends = Counter(attempt.submitted.end for attempt in read_attempts(directory))
        if ends["complete"] != 1 or "" in ends:
            wrong.append(f"{directory.path}: its attempts ended {dict(ends)}, of which one should be complete")
        epochs = [line["epoch"] for line in read_metrics(directory)]
        if epochs != list(range(1, len(epochs) + 1)):
            wrong.append(f"{directory.metrics}: not one line an epoch: {epochs}")
    wrong += [f"left: {p}" for p in root.glob("**/*") if p.name.startswith(".tmp-") or p.name.endswith(".lock")]
    return wrong
