"""The table of labels of a folder of recordings: a CSV file with id, label, and optionally split and group."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmkd.data.conversion import split_name
from mmkd.data.dataset import SPLITS, Array
from mmkd.data.identify import identify
from mmkd.data.importers.meanings import nearest_class
from mmkd.data.untrusted import memory_for
from mmkd.errors import UserError, did_you_mean

COLUMNS = {
    "id": ("id", "sample", "name", "file", "filename"),
    "label": ("label", "class", "target"),
    "split": ("split", "set", "part", "partition"),
    "group": ("group", "subject", "speaker", "video"),
}
"""Our names of the table's columns -> those that are known."""


@dataclass(frozen=True)
class Scores:
    """Labels that are scores: the first and the last class's score, and how many classes there are, evenly spaced."""

    first: float
    last: float
    classes: int


@dataclass(frozen=True)
class Table:
    """The table of labels: one entry for each sample."""

    path: Path
    ids: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]


def read_table(path: Path) -> Table:
    """Read the table of labels.

    Raises:
        UserError: it is missing or no CSV file, lacks a column, or has an id twice, an empty cell or an unknown split.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such table; write a CSV file with the columns id, label, split (optional) and group (optional)"
        )
    try:
        with memory_for(path):
            rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error, MemoryError) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); {identify(path)}") from None
    if not rows:
        raise UserError(f"{path}: has no line after the header; give one for each sample")
    header = [str(name) for name in rows[0] if name is not None]
    found = {
        ours: next((name for name in header if name.strip().lower() in known), None) for ours, known in COLUMNS.items()
    }
    for column in ("id", "label"):
        if found[column] is None:
            hint = "; separate columns with commas" if len(header) == 1 and any(c in header[0] for c in ";\t") else ""
            hint = hint or f"; {did_you_mean(column, header)}".rstrip("; ")
            raise UserError(f"{path}: no column {column!r} among {', '.join(header)}{hint}")
    columns: dict[str, list[str]] = {column: [] for column in COLUMNS}
    for number, row in enumerate(rows, 2):
        if None in row:
            raise UserError(f"{path}: line {number} has more cells than the header")
        for column, name in found.items():
            if name is not None:
                cell = (row[name] or "").strip()
                if not cell:
                    raise UserError(f"{path}: line {number} has nothing in the column {name!r}")
                columns[column].append(cell)
    seen: dict[str, int] = {}
    for number, sample in enumerate(columns["id"], 2):
        if sample in seen:
            raise UserError(f"{path}: id {sample!r} is in line {seen[sample]} and in line {number}; keep one")
        seen[sample] = number
    splits = [split_name(cell) for cell in columns["split"]]
    for number, (name, cell) in enumerate(zip(splits, columns["split"], strict=True), 2):
        if name not in SPLITS:
            raise UserError(f"{path}: line {number}: split {cell!r} is none of train, valid (dev, validation) and test")
    return Table(path, columns["id"], columns["label"], splits, columns["group"])


def read_labels(table: Table, scores: Scores | None) -> tuple[tuple[str, ...], Array, Array | None]:
    """Names of the classes, class index of each sample, and its score."""
    if scores is not None:
        numbers = np.array(
            [_number(f"{table.path}: sample {s!r}", x) for s, x in zip(table.ids, table.labels, strict=True)]
        )
        outside = (numbers < scores.first) | (numbers > scores.last)
        if outside.any():
            first = int(outside.argmax())
            raise UserError(
                f"{table.path}: sample {table.ids[first]!r} has the score {numbers[first]:g}, stated is --scores="
                f"{scores.first:g},{scores.last:g},{scores.classes}"
            )
        names = tuple(f"{score:g}" for score in np.linspace(scores.first, scores.last, scores.classes))
        return names, nearest_class(numbers, (scores.first, scores.last), scores.classes), numbers.astype(np.float32)
    parsed = [_maybe_number(label) for label in table.labels]
    if all(number is not None for number in parsed):
        real = [number for number in parsed if number is not None]
        if not all(number.is_integer() for number in real):
            first = next(n for n, number in enumerate(real) if not number.is_integer())
            raise UserError(
                f"{table.path}: label {table.labels[first]} of sample {table.ids[first]!r} is no class; for scores "
                f"give --scores=FIRST,LAST,CLASSES, such as --scores={min(real):g},{max(real):g},5"
            )
        values = sorted({int(number) for number in real})
        names = tuple(map(str, values))
        return names, np.searchsorted(values, np.array(real, np.int64)), None
    names = tuple(sorted(set(table.labels)))
    return names, np.searchsorted(names, table.labels).astype(np.int64), None


def _maybe_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 2**53 else None


def _number(where: str, text: str) -> float:
    number = _maybe_number(text)
    if number is None:
        raise UserError(f"{where}: label {text!r} is not a score (a number)")
    return number
