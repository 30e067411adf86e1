"""A table as data: what every renderer reads. Raw values are kept; `text` alone is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Style = Literal["spread", "mean", "ratio", "count"]


@dataclass(frozen=True)
class Column:
    """A column: `spread` shows mean ± SD, `mean` the mean alone, `ratio` n or n/N, `count` a whole number."""

    key: str
    label: str
    style: Style


@dataclass(frozen=True)
class Cell:
    """One value, the sample SD of the `n` values that it is the mean of, and how many were `wanted`.

    `footnote` is the 1-based number of a footnote. A cell without value has the text "–" and a footnote that says
    why, or no text where it does not apply or the row's status says why.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    wanted: int | None = None
    text: str = ""
    footnote: int | None = None


@dataclass(frozen=True)
class TableRow:
    """One line; `status` is empty where the row is finished, else says how far it is or why it failed."""

    name: str
    label: str
    kind: Literal["teacher", "student"]
    status: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Section:
    """Rows that belong together, under a title or none; teachers first."""

    title: str | None
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """A whole table and everything that has to be said with it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
