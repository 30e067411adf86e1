"""Every trial under its row or teacher: its end, and the part of its configuration that differs from the others'."""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.loading.configurations import flat_configuration
from analysis.loading.runs import Runs
from mmkd.formatting import teacher_label
from mmkd.records import StudyRecord, differences
from mmkd.rundir import RowDir

LONGEST = 300
"""Characters of a message that are shown."""

_TUNING = ("selection", "sampler", "pruner", "sampled", "winner_trial", "winner_value")
"""The description of a row's search, beside its space."""

Flat = Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A trial: `name` is its directory within its group's; scores are shares, None where there are none.

    `differs` is what of its configuration is not the group's; None where it has no config.json yet.
    """

    kind: str
    name: str
    status: str
    message: str
    attempts: int
    seconds: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    test_accuracy: float | None
    differs: Flat | None


@dataclass(frozen=True)
class Group:
    """The trials of one row, or the teachers that differ in their seeds alone; `common` is what all of them share."""

    directory: str
    common: Flat
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Listed:
    """A row, or the teachers that differ in their seeds alone, with every trial; `journal` is quoted for a shell."""

    anchor: str
    title: str
    tuning: Flat
    journal: str
    group: Group


def group(runs: Runs, directory: str, lines: pd.DataFrame) -> Group:
    """The trials in `lines`, all under `directory` (relative to the root).

    Raises:
        OSError: a config.json is there and cannot be read.
    """
    configs = [flat_configuration(runs.root / str(name)) for name in lines["directory"]]
    known = [config for config in configs if config is not None]
    differing = differences(known)
    common = {key: _text(leaf) for key, leaf in (known[0] if known else {}).items() if key not in differing}
    records = lines.to_dict("records")
    made = (_run(directory, line, config, differing) for line, config in zip(records, configs, strict=True))
    return Group(directory, common, tuple(made))


def _text(leaf: Any) -> str:
    return leaf if isinstance(leaf, str) else json.dumps(leaf, ensure_ascii=False)


def _run(directory: str, line: Mapping[Any, Any], config: Mapping[str, Any] | None, differing: Container[str]) -> Run:
    known = {key: value for key, value in line.items() if not pd.isna(value)}
    status = f"{known['status']} ({known['failure']})" if "failure" in known else known["status"]
    kind = "superseded" if line["superseded"] else str(line["kind"])
    message = str(known.get("message", ""))
    return Run(
        kind,
        str(line["directory"]).removeprefix(f"{directory}/").rpartition("/")[2],
        status,
        message if len(message) <= LONGEST else f"{message[:LONGEST]}…",
        int(known.get("attempts", 0)),
        known.get("seconds"),
        known.get("valid_loss"),
        known.get("valid_accuracy"),
        known.get("test_accuracy"),
        None if config is None else {key: _text(leaf) for key, leaf in config.items() if key in differing},
    )


def list_rows(runs: Runs, specs: Sequence[StudyRecord], mine: Sequence[str] | None) -> tuple[Listed, ...]:
    """The rows in the studies' order, then, unless `mine` are wanted alone, all others."""
    labels = {row.directory: f"{row.label} [{row.group}]" if row.group else row.label for s in specs for row in s.rows}
    lines = dict(list(runs.trials.groupby("row")))
    others = [] if mine is not None else sorted({*map(str, lines), *map(str, runs.rows["row"])} - set(labels))
    tuned = {str(line["row"]): line for line in runs.rows.to_dict("records")}
    return tuple(
        Listed(
            f"row-{number}",
            labels.get(name, f"{name} (in no study)"),
            _search(tuned.get(name, {})),
            _journal(runs, name),
            group(runs, f"rows/{name}", lines.get(name, runs.trials.iloc[:0])),
        )
        for number, name in enumerate([*labels, *others], start=1)
        if name in lines or name in tuned
    )


def _search(line: Mapping[Any, Any]) -> Flat:
    """The row's tuning, from its line: the hyperparameters' ranges, then the rest."""
    known = {key: value for key, value in line.items() if not pd.isna(value)}
    spaces = [key.removesuffix(".low") for key in known if key.startswith("space.") and key.endswith(".low")]
    ranges = {
        key: f"{known[f'{key}.low']} to {known.get(f'{key}.high')}" + (", log" if known.get(f"{key}.log") else "")
        for key in spaces
    }
    others = {key: known[key] for key in _TUNING if key in known}
    return ranges | {key: f"{x:.6g}" if isinstance(x, float) else str(x) for key, x in others.items()}


def _journal(runs: Runs, row: str) -> str:
    there = RowDir(runs.root / "rows" / row).journal.exists()
    return shlex.quote(RowDir(Path("rows") / row).journal.as_posix()) if there else ""


def list_teachers(runs: Runs, mine: Sequence[str] | None) -> tuple[Listed, ...]:
    """The teachers that runs of these rows name; all where `mine` is None."""
    trials = runs.trials
    teachers = trials[trials["kind"] == "teacher"]
    if mine is not None:
        teachers = teachers[teachers["directory"].isin(trials.loc[trials["row"].isin(mine), "teacher"])]
    families = teachers.groupby("teacher_family", sort=False, dropna=False)
    return tuple(
        Listed(f"teacher-{number}", _teacher_title(lines), {}, "", group(runs, "teachers", lines))
        for number, (_, lines) in enumerate(families, start=1)
    )


def _teacher_title(lines: pd.DataFrame) -> str:
    branch, family = lines["branch"].iloc[0], lines["teacher_family"].iloc[0]
    if pd.isna(family):
        return "Teacher without config.json"
    use = "final runs" if lines["test_accuracy"].notna().any() else "tuning"
    return f"{teacher_label(branch, 'Teacher')}, of {use}"
