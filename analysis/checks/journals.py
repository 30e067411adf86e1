"""Check that a row's Optuna journal says what its trials' directories say: tuning went by these values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.checks.finding import Finding, first_few
from analysis.loading.frames import HYPERPARAMETERS
from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from mmkd.rundir import RowDir

CREATE_TRIAL, SET_PARAM, SET_VALUES = 4, 5, 6
"""Operations of Optuna's journal (`optuna.storages.journal.JournalOperation`); trials are numbered as created."""


@dataclass
class _Told:
    """A trial in a journal."""

    params: dict[str, float] = field(default_factory=dict)
    value: float | None = None


def changed_journals(runs: Runs, row: ReplicateRuns) -> Iterator[Finding]:
    """Findings about the journal of a row that has begun."""
    path = RowDir(runs.root / "rows" / row.spec.directory).journal
    if not path.exists():
        return
    name = path.relative_to(runs.root)
    try:
        told = _read(path)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        yield Finding("journal", f"{name}: not as Optuna writes it ({type(error).__name__}: {error})")
        return
    column = f"valid_{row.fact('selection')}"
    wrong = []
    for line in row.tuning.to_dict("records"):
        number = int(line["number"])
        if number >= len(told):
            wrong.append(f"trial {number} is not in it")
            continue
        wrong += [f"trial {number}: {what}" for what in _differing(told[number], line, column)]
    if wrong:
        yield Finding("journal", f"{name}: differs from the directories: {first_few(wrong)}")


def _read(path: Path) -> list[_Told]:
    """The trials of a journal; an incomplete last line, which a kill leaves, is none."""
    told: list[_Told] = []
    whole = path.read_bytes().rpartition(b"\n")[0]
    for line in whole.split(b"\n"):
        entry: dict[str, Any] = json.loads(line)
        if entry["op_code"] == CREATE_TRIAL:
            told.append(_Told({**(entry.get("params") or {})}, _first(entry)))
        elif entry["op_code"] == SET_PARAM:
            told[entry["trial_id"]].params[entry["param_name"]] = entry["param_value_internal"]
        elif entry["op_code"] == SET_VALUES and entry.get("values"):
            told[entry["trial_id"]].value = _first(entry)
    return told


def _first(entry: Mapping[str, Any]) -> float | None:
    values = entry.get("values") or [entry.get("value")]
    return None if values[0] is None else float(values[0])


def _differing(told: _Told, line: Mapping[Any, Any], column: str) -> Iterator[str]:
    pairs = {"value": (told.value, line.get(column))}
    pairs |= {name: (told.params.get(name), line.get(name)) for name in HYPERPARAMETERS}
    for name, (mine, theirs) in pairs.items():
        if mine is not None and not _is_missing(theirs) and not np.isclose(mine, float(str(theirs)), rtol=1e-6):
            yield f"{name} {mine:.6g}, not {theirs:.6g}"


def _is_missing(value: Any) -> bool:
    return value is None or value != value
