"""The frames of all trials, kept under the root so that only what has changed is read again.

One HDF5 file, `.cache/analysis.h5`; it may be deleted at any time. It holds arrays and JSON, nothing that is executed
on reading. A trial is read again when the signature of its directory differs (see `loading.read_trial.signature`), all
of them when the code that reads them does.
"""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

import analysis.loading.read_trial
import mmkd.attempts
import mmkd.config
import mmkd.result_file
import mmkd.trial_state
from analysis.loading import frames
from analysis.loading.frames import ATTEMPTS, CURVES, REJECTED, TRIALS, Schema, curves_frame, frame, typed
from analysis.loading.read_trial import Reading, read_trial, signature
from mmkd.files import write_atomically

PATH = Path(".cache", "analysis.h5")

Frames = dict[str, pd.DataFrame]
"""The content of the trials' directories: a frame for each of `SCHEMAS`, whose first column is the directory."""
SCHEMAS: dict[str, Schema] = {"trials": TRIALS, "curves": CURVES, "attempts": ATTEMPTS, "rejected": REJECTED}


def gather(root: Path, directories: Sequence[str], *, use_cache: bool) -> Frames:
    """Frames of `directories` (relative to the root), in their order; only changed directories are read."""
    today = {directory: signature(f"{root}/{directory}") for directory in directories}
    kept, known = _read(root) if use_cache else (assemble([]), {})
    if known == today:
        return kept
    stale = [directory for directory in directories if known.get(directory) != today[directory]]
    made = assemble([read_trial(root, directory) for directory in stale])
    if known:
        made = _merge(kept, made, directories, set(stale))
    if use_cache:
        _write(root, made, today)
    return made


def assemble(readings: Sequence[Reading]) -> Frames:
    """The frames of what was read."""
    good = [reading for reading in readings if not reading.reason]
    return {
        "trials": frame([reading.trial for reading in good], TRIALS),
        "curves": curves_frame({reading.directory: reading.curves for reading in good}),
        "attempts": frame([attempt for reading in good for attempt in reading.attempts], ATTEMPTS),
        "rejected": frame([{"path": r.directory, "reason": r.reason} for r in readings if r.reason], REJECTED),
    }


def _merge(kept: Frames, made: Frames, directories: Sequence[str], stale: set[str]) -> Frames:
    """The frames `kept`, less lines that are stale or gone, with the lines of `made`."""
    order = pd.Index(directories)
    merged = {}
    for name, schema in SCHEMAS.items():
        old, new = kept[name], made[name]
        old = old[old.iloc[:, 0].isin(set(directories) - stale)]
        both = pd.concat([part for part in (old, new) if len(part)] or [new], ignore_index=True)
        merged[name] = typed(both.iloc[np.argsort(order.get_indexer(pd.Index(both.iloc[:, 0])), kind="stable")], schema)
        merged[name] = merged[name].reset_index(drop=True)
    return merged


@cache
def _code() -> str:
    """A hash of the code that makes frames of files: what other code made is not used."""
    ours = (mmkd.attempts, mmkd.config, mmkd.result_file, mmkd.trial_state)
    sources = [inspect.getsource(module) for module in (frames, analysis.loading.read_trial, *ours)]
    return hashlib.sha256("".join([*sources, inspect.getsource(_write_frame)]).encode()).hexdigest()


def _read(root: Path) -> tuple[Frames, dict[str, str]]:
    """The cached frames and the signatures that they were read at; empty where there is no usable cache."""
    empty: tuple[Frames, dict[str, str]] = assemble([]), {}
    try:
        with h5py.File(root / PATH, "r", locking=False) as file:
            if file.attrs["code"] != _code():
                return empty
            return {name: _read_frame(file[name]) for name in SCHEMAS}, _get_json(file, "signatures")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        return empty  # absent, truncated or foreign: whatever it is, the directories are the truth


def _write(root: Path, made: Frames, signatures: dict[str, str]) -> None:
    def write(new: Path) -> None:
        with h5py.File(new, "w") as file:
            file.attrs["code"] = _code()
            _put_json(file, "signatures", signatures)
            for name, part in made.items():
                _write_frame(file.create_group(name), part)

    path = root / PATH
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            warnings.warn(f"{path}: not written ({error}); the next load reads every trial again", stacklevel=2)


def _write_frame(group: h5py.Group, made: pd.DataFrame) -> None:
    """Columns by number: text as its distinct values and their codes (-1: missing), whole numbers beside a mask."""
    _put_json(group, "columns", {name: str(made[name].dtype) for name in made})
    for number, name in enumerate(made):
        column = made[name]
        if column.dtype == "string":
            codes, distinct = pd.factorize(column)
            group[f"{number}"] = codes.astype(np.int32)
            _put_json(group, f"{number}.distinct", list(distinct))
        elif column.dtype == "Int64":
            group[f"{number}"] = column.to_numpy(np.int64, na_value=0)
            group[f"{number}.missing"] = column.isna().to_numpy(bool)
        else:
            group[f"{number}"] = column.to_numpy()


def _read_frame(group: h5py.Group) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for number, (name, kind) in enumerate(_get_json(group, "columns").items()):
        values = group[f"{number}"][()]
        if kind == "string":
            distinct = np.array([*_get_json(group, f"{number}.distinct"), pd.NA], dtype=object)
            columns[name] = pd.array(distinct[values], dtype="string")
        elif kind == "Int64":
            columns[name] = pd.arrays.IntegerArray(values, group[f"{number}.missing"][()])
        else:
            columns[name] = values
    return pd.DataFrame(columns)


def _put_json(group: h5py.Group, name: str, value: Any) -> None:
    group[name] = np.frombuffer(json.dumps(value).encode(), np.uint8)


def _get_json(group: h5py.Group, name: str) -> Any:
    return json.loads(group[name][()].tobytes())
