"""A run as every tracker gets it: parameters, epochs, result and tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.loading.configurations import flat_configuration
from analysis.loading.replicate_runs import FINISHED
from analysis.loading.runs import Runs
from mmkd.config import digest
from mmkd.metrics_log import read_metrics
from mmkd.records import StudyRecord, find_record, study_names
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State

PROJECT = "mmkd"
"""Name of the experiment (MLflow) or project (W&B) that holds the runs."""
RESULTS = ("best_epoch", "epochs", "parameters", "seconds")
"""Columns of `Runs.trials` that are exported beside the metrics. They are the result's, which never changes."""
_CLOCK = ("epoch", "time", "seconds")


@dataclass(frozen=True)
class Epoch:
    """One line of the metrics file; `time` is in seconds since 1970."""

    number: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """A tuning trial, a final run or a teacher.

    Attributes:
        id: the same for the same directory and configuration, in every copy of the root.
        name: the directory, relative to the root.
        parameters: the configuration, flat, without paths of this machine.
        tags: kind (tuning, final or teacher), state, and where they apply study, row, method and superseded.
        epochs: the metrics file.
        result: metrics of the best epoch and costs; empty until the run is finished.
        started: start of the first attempt, in seconds since 1970; 0 before that.
        ended: end of the last attempt or, until it is known, the last epoch's time.
    """

    id: str
    name: str
    parameters: Mapping[str, str | float | bool]
    tags: Mapping[str, str]
    epochs: tuple[Epoch, ...]
    result: Mapping[str, float]
    started: float
    ended: float

    @property
    def state(self) -> str:
        """Outcome of a finished run, otherwise its state."""
        return self.tags["state"]

    @property
    def is_finished(self) -> bool:
        """True if there is a result: complete, pruned or diverged."""
        return self.state in FINISHED

    @property
    def measured(self) -> float:
        """Time of the result: the last epoch's, which no later record changes."""
        return self.epochs[-1].time if self.epochs else self.started

    @property
    def content(self) -> str:
        """Hash of everything above: equal if there is nothing new to export."""
        return digest(repr(self))


Exporter = Callable[[TrackedRun], bool]
"""Write what a tracker lacks of a run. Return True if that was anything."""


def tracked_runs(runs: Runs, study: str | None = None) -> Iterator[TrackedRun]:
    """Yield all runs that have begun, or those of one study."""
    studies = _studies_of(runs)
    times = runs.attempts.groupby("directory").agg({"started": "min", "ended": "max"})
    for line in runs.trials.to_dict("records"):
        known = {str(key): value for key, value in line.items() if not pd.isna(value)}
        within = studies.get(known["directory"] if known["kind"] == "teacher" else f"rows/{known['row']}", [])
        parameters = flat_configuration(runs.root / known["directory"])
        if parameters is None or (study is not None and study not in within):
            continue
        began, ended = times.loc[known["directory"]].fillna(0.0) if known["directory"] in times.index else (0.0, 0.0)
        made = _tracked_run(runs, known, parameters, within, float(began), float(ended))
        if made.epochs or made.state not in (State.SAMPLED, State.PENDING):
            yield made


def _tracked_run(
    runs: Runs, line: Mapping[str, Any], parameters: Mapping[str, Any], studies: list[str], began: float, ended: float
) -> TrackedRun:
    epochs = tuple(_epochs(TrialDir(runs.root / line["directory"])))
    kind = "final" if line["kind"] == "confirm" else str(line["kind"])
    tags = {"kind": kind, "state": str(line["status"])}
    optional = {
        "study": ", ".join(studies),
        "row": line.get("row"),
        "method": parameters.get("distillation.method"),
        "superseded": "true" if line["superseded"] else None,
    }
    result = {name: float(line[name]) for name in RESULTS if name in line}
    result |= {
        name: float(value)
        for name, value in line.items()
        if name.startswith(("valid_", "test_")) and isinstance(value, (int, float))
    }
    return TrackedRun(
        digest([line["directory"], dict(parameters)])[:16],
        str(line["directory"]),
        {
            key: value if isinstance(value, (str, int, float)) else json.dumps(value)
            for key, value in parameters.items()
        },
        tags | {name: str(value) for name, value in optional.items() if value},
        epochs,
        result if line["status"] in FINISHED else {},
        began,
        ended or (epochs[-1].time if epochs else began),
    )


def _epochs(directory: TrialDir) -> Iterator[Epoch]:
    for number, line in enumerate(read_metrics(directory), start=1):
        values = {
            name: float(value) for name, value in line.items() if name not in _CLOCK and isinstance(value, (int, float))
        }
        yield Epoch(number, float(line.get("time", 0.0)), values)


def _studies_of(runs: Runs) -> dict[str, list[str]]:
    """The studies that contain each row and teacher, by its directory relative to the root."""
    found: dict[str, list[str]] = {}
    for name in study_names(runs.root):
        record = find_record(Root(runs.root).study(name), StudyRecord)
        for row in record.rows if record else ():
            for directory in (f"rows/{row.directory}", *(f"teachers/{teacher}" for teacher in row.teachers)):
                members = found.setdefault(directory, [])
                if name not in members:
                    members.append(name)
    return found
