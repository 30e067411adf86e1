"""The frames of `analysis.loading.runs.Runs`: their columns, in which order and of which type.

Four types, whatever the files hold: text is "string", whole numbers are "Int64" or "int64", other numbers "float64",
and yes or no is "bool". Columns that no schema names (a metric of the user's own, what a cluster says of a job) follow
in natural order, "float64" where all of their values are numbers (yes is 1), else as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmkd.records import leaves

Floats = NDArray[np.float64]
Schema = Mapping[str, str]

SCORES = ("loss", "accuracy", "weighted_f1", "macro_f1", "majority_share", "majority_accuracy")

ROWS: Schema = {
    **dict.fromkeys(("row", "name", "digest", "method", "level", "pairing", "primary"), "string"),
    "replicate": "Int64",
    **dict.fromkeys(("split", "source", "fingerprint", "modalities", "selection", "sampler", "pruner"), "string"),
    **dict.fromkeys(("algorithm", "sampled", "numbers", "winner_trial"), "Int64"),
    "winner_value": "float64",
}
HYPERPARAMETERS = ("learning_rate", "alpha", "beta", "temperature")
"""Columns of what Optuna may tune."""

STUDIES: Schema = {
    **dict.fromkeys(("study", "name", "label", "group"), "string"),
    "replicate": "Int64",
    "row": "string",
    "control": "bool",
    "trials": "Int64",
    "seeds": "Int64",
}
TRIALS: Schema = {
    **dict.fromkeys(("directory", "kind", "row"), "string"),
    **dict.fromkeys(("replicate", "number", "seed"), "Int64"),
    **dict.fromkeys(("split", "test_groups"), "string"),
    **dict.fromkeys(("status", "failure", "message"), "string"),
    "superseded": "bool",
    **dict.fromkeys(HYPERPARAMETERS, "float64"),
    **dict.fromkeys(("best_epoch", "epochs", "parameters", "attempts"), "Int64"),
    **dict.fromkeys(("seconds", "gpu_seconds"), "float64"),
    **dict.fromkeys(("device", "fingerprint", "commit", "weights", "teacher", "teacher_family", "branch"), "string"),
    **{f"{split}_{score}": "float64" for split in ("valid", "test") for score in SCORES},
}
CURVES: Schema = {"directory": "string", "epoch": "int64"}
ATTEMPTS: Schema = {
    "directory": "string",
    "attempt": "int64",
    **dict.fromkeys(("end", "message", "host", "device"), "string"),
    **dict.fromkeys(("started", "ended", "seconds"), "float64"),
    "pid": "Int64",
    **dict.fromkeys(("python", "git.commit", "git.diff"), "string"),
}
REJECTED: Schema = {"path": "string", "reason": "string"}


def frame(lines: Iterable[Mapping[str, Any]], schema: Schema) -> pd.DataFrame:
    """A frame of lines, whose nested mappings become columns `outer.inner`."""
    flat = ([(key, leaf) for key, leaf in leaves(line) if not isinstance(leaf, Mapping)] for line in lines)
    return typed(pd.DataFrame([dict(line) for line in flat]), schema)


def curves_frame(curves: Mapping[str, Mapping[str, Floats]]) -> pd.DataFrame:
    """One line per directory and epoch (from 1), from each directory's series; shorter ones end in NaN."""
    lengths = {name: max((len(series) for series in own.values()), default=0) for name, own in curves.items()}
    names = sorted({name for own in curves.values() for name in own} - {"epoch"}, key=natural)
    columns: dict[str, Any] = {
        "directory": pd.array(np.repeat(np.array(list(lengths), dtype=object), list(lengths.values())), dtype="string"),
        "epoch": np.concatenate([np.arange(1, n + 1) for n in lengths.values()] or [np.zeros(0, np.int64)]),
    }
    for name in names:
        columns[name] = np.concatenate([_padded(own.get(name), lengths[key]) for key, own in curves.items()])
    return typed(pd.DataFrame(columns), CURVES)


def typed(made: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """`made` with the schema's columns first, and all columns of the types that are said above."""
    others = sorted(set(made.columns) - set(schema), key=natural)
    made = made.reindex(columns=[*schema, *others])
    kinds = dict(schema) | {name: _kind(made[name]) for name in others}
    texts = {name: made[name].map(_text, na_action="ignore") for name in others if kinds[name] == "string"}
    return made.assign(**texts).astype(kinds)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts `recall_10` after `recall_9`."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _padded(series: Floats | None, length: int) -> Floats:
    values = np.full(length, np.nan)
    if series is not None:
        values[: len(series)] = series
    return values


def _kind(column: pd.Series[Any]) -> str:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "float64"
    known = column.dropna()
    return "float64" if len(known) and known.map(lambda value: isinstance(value, (int, float))).all() else "string"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
