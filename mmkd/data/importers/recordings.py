"""Read one recording (T, F) from a .npy, .npz or .csv file; none of them can run code."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np

from mmkd.data.conversion import narrow
from mmkd.data.dataset import Array
from mmkd.data.identify import identify
from mmkd.data.untrusted import memory_for
from mmkd.errors import UserError

ENDINGS = (".npy", ".npz", ".csv")


def read_recording(path: Path) -> Array:
    """Read (T, F) of a file as float32, or float16 if it is that.

    Raises:
        UserError: naming the file.
    """
    try:
        with memory_for(path):
            array = {".npy": _npy, ".npz": _npz, ".csv": _csv}[path.suffix.lower()](path)
    except UserError:
        raise
    except Exception as error:  # numpy raises whatever a broken header or archive leads it to
        known = identify(path)
        known = "" if path.suffix.lower()[1:] in known else known
        raise UserError(f"{path}: not readable ({type(error).__name__}: {error}){known and '; '}{known}") from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size:
        raise UserError(f"{path}: its shape is {array.shape}, not (steps, features)")
    return np.array(narrow(str(path), array))


def _npy(path: Path) -> Array:
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))  # no pickles, no more memory than the file has bytes


def _npz(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise UserError(f"{path}: holds {', '.join(archive.files) or 'nothing'}; store one array in each file")
        return np.asarray(archive[archive.files[0]])


def _csv(path: Path) -> Array:
    """Rows are steps; a first row of texts is a header."""
    text = path.read_text(encoding="utf-8-sig")
    rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    if rows and any(_cell(value) is None for value in rows[0]):
        rows = rows[1:]
    made = []
    for number, row in enumerate(rows, 1):
        cells = [_cell(value) for value in row]
        if None in cells:
            bad = row[cells.index(None)]
            hint = (
                "; separate values with commas, and write decimals with a point" if ";" in text or "\t" in text else ""
            )
            raise UserError(f"{path}: row {number}: {bad[:40]!r} is not a number{hint}")
        if len(row) != len(rows[0]):
            raise UserError(f"{path}: row {number} has {len(row)} values, the first has {len(rows[0])}")
        made.append(cells)
    return np.array(made, np.float64)


def _cell(value: str) -> float | None:
    try:
        return float(value) if value.strip() else math.nan
    except ValueError:
        return None
