"""Every trial under its row or teacher: how it ended, and its configuration as what differs from the others there."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.loading.runs import Runs
from mmkd.files import read_json
from mmkd.records import differences, leaves
from mmkd.rundir import TrialDir

LEFT_OUT = ("data.path", "teacher.data.path")
"""Where the data lay on the machine: nothing for a file that is passed on, and in each config.json."""

LONGEST = 300
"""Characters of a message that are shown."""

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


def group(runs: Runs, directory: str, lines: pd.DataFrame) -> Group:
    """The trials in `lines`, which lie under `directory` (relative to the root).

    Raises:
        OSError: a config.json is there and cannot be read.
    """
    configs = [_configuration(runs.root / str(name)) for name in lines["directory"]]
    known = [config for config in configs if config is not None]
    differing = differences(known)
    common = {key: _text(leaf) for key, leaf in (known[0] if known else {}).items() if key not in differing}
    records = lines.to_dict("records")
    made = (_run(directory, line, config, differing) for line, config in zip(records, configs, strict=True))
    return Group(directory, common, tuple(made))


def _configuration(place: Path) -> dict[str, Any] | None:
    path = TrialDir(place).config
    value = read_json(path) if path.exists() else None
    return {key: leaf for key, leaf in leaves(value) if key not in LEFT_OUT} if isinstance(value, Mapping) else None


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
