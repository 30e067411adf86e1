"""Splits, columns, ids and videos of pickles: the parts that their importers share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.data.conversion import as_array, as_sequences, by_split
from mmkd.data.dataset import SPLITS, Array
from mmkd.data.identify import identify
from mmkd.data.importers.importing import Progress
from mmkd.data.safe_pickle import load_arrays
from mmkd.errors import UserError

MODALITIES = {"video": "vision", "audio": "audio", "language": "text"}
"""Our names of the modalities -> the keys of these pickles."""

_MMSA = {"regression_labels", "classification_labels", "annotations"}


def load_splits(pickle: Path, keys: Collection[str], progress: Progress) -> dict[str, dict[str, Any]]:
    """Read a pickle of the splits train, valid (also dev, validation) and test, each a dict with `keys` and others.

    Raises:
        UserError: the pickle asks for more than arrays, or lacks a split or a key; naming those that it has.
    """
    data = load_arrays(pickle, progress)
    if not isinstance(data, dict):
        known = identify(pickle)
        known = f"; {known}" if "PyTorch" in known else ""
        raise UserError(f"{pickle}: holds a {type(data).__name__}, not a dict of train, valid and test{known}")
    parts = by_split(str(pickle), data)
    splits = {}
    for name in SPLITS:
        part = parts.get(name)
        if not isinstance(part, dict):
            has = ", ".join(map(repr, list(parts)[:12])) or "nothing"
            what = "is missing" if part is None else f"is a {type(part).__name__}, not a dict"
            raise UserError(f"{pickle}: split {name!r} {what}; the file has {has}")
        splits[name] = {_text(key): value for key, value in part.items() if value is not None}
        for key in keys:
            if key not in splits[name]:
                has = ", ".join(sorted(splits[name])[:20]) or "nothing"
                raise UserError(f"{pickle}: split {name!r}: {key!r} is missing; it has {has}{_advice(splits[name])}")
    return splits


def _advice(part: Mapping[str, Any]) -> str:
    """The importer whose keys these are."""
    if part.keys() & _MMSA:
        return "; these are MMSA's keys: use `mmkd data import mmsa`"
    if {"vision", "audio", "text", "labels"} <= part.keys():
        return "; these are MulT's keys: use `mmkd data import mult` or `multibench`"
    return ""


def take_sequences(where: str, part: dict[str, Any], key: str, names: Sequence[str]) -> Array:
    """Take the array (N, T, F) out of `part`, so that a float64 original can be freed, as floats that may be changed.

    Raises:
        UserError: it is no array of numbers, or a value does not fit float32.
    """
    value = as_sequences(f"{where}: {key!r}", part.pop(key), names)
    if isinstance(value, list):
        lengths = sorted({len(each) for each in value})
        if len(lengths) != 1:
            raise UserError(f"{where}: {key!r} holds arrays of {lengths[0]} to {lengths[-1]} steps, not one (N, T, F)")
        value = np.stack(value)
    if value.ndim != 3 or len(value) != len(names) or not value.size:
        raise UserError(f"{where}: {key!r}: its shape is {value.shape}, not ({len(names)}, steps, features)")
    return np.require(value, None, "W")


def take_numbers(where: str, part: dict[str, Any], key: str) -> Array:
    """Take an array of numbers out of `part`, as float64.

    Raises:
        UserError: it is none.
    """
    try:
        return np.asarray(as_array(part.pop(key)), np.float64)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{where}: {key!r} is no array of numbers ({error})") from None


def take_ids(where: str, part: dict[str, Any], samples: int, seen: Counter[str]) -> tuple[list[str], list[str]]:
    """The id and the video of each sample; ids are unique over all splits by `seen`. Both empty if there are none.

    Ids of several columns are joined by `_`; repeated ones get `#2`, `#3`. The video is the first of several columns,
    or what stands before `$_$3` or `[3]`; "" if the id does not tell.
    """
    if "id" not in part:
        return [], []
    try:
        rows = np.asarray(part.pop("id"), object).reshape(samples, -1).tolist()
    except ValueError as error:
        raise UserError(f"{where}: 'id' does not hold one id for each of {samples} labels ({error})") from error
    if any(not row for row in rows):
        raise UserError(f"{where}: 'id' has no columns; give one id for each of {samples} labels, or leave it out")
    columns = [[_text(value) for value in row] for row in rows]
    ids = []
    for name in map("_".join, columns):
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids, [_video(name) for name in columns]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _video(name: list[str]) -> str:
    if len(name) > 1:
        return name[0]
    if match := re.fullmatch(r"(Ses\d+)[FM]_.*_([FM])\d+", name[0]):  # IEMOCAP: session and speaker
        return f"{match[1]} {match[2]}"
    match = re.fullmatch(r"(.+?)(?:\$_\$\d+|\[\d+\])", name[0])
    return match[1] if match else ""
