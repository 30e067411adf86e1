"""A table as data: what every renderer reads. Raw values are kept; `text` alone is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Style = Literal["spread", "mean", "ratio", "count", "times", "cost", "difference", "p"]


@dataclass(frozen=True)
class Column:
    """A column, and whether more or less of it is better.

    `spread` shows mean ± error, `mean` the mean alone, `ratio` n or n/N, `count` a whole number, `times` a factor,
    `cost` minutes or hours, `difference` a difference and its interval, `p` a p value.
    """

    key: str
    label: str
    style: Style
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the control's in points, its 95 % interval (of this one comparison), p, and p corrected for
    all rows that are compared. None where there are too few seeds."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Cell:
    """One value, the sample SD of the `n` values that it is the mean of, and how many were `wanted`.

    `error` is what is shown behind ±. `rank` is 1 for the best and 2 for the second among the students that are
    compared; `tied` says whether the row is not told apart from the best (None: not tested). `footnote` is the 1-based
    number of a footnote. A cell without value has the text "–" and a footnote that says why, or no text where it does
    not apply or the row's status says why.
    """

    value: float | None = None
    spread: float | None = None
    n: int | None = None
    wanted: int | None = None
    error: float | None = None
    rank: int | None = None
    tied: bool | None = None
    difference: Difference | None = None
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

    @property
    def shown(self) -> str:
        """The label as it is shown."""
        return f"{self.label} ({self.status})" if self.status else self.label


@dataclass(frozen=True)
class Section:
    """Rows that belong together, under a title or none; teachers first."""

    title: str | None
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """A whole table and everything that has to be said with it.

    `legend` says what is marked as the best and the second best; {best}, {second} and {tied} in it stand for a
    format's own marks. `provenance` is where each row comes from, as JSON values.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())
    legend: str = ""
    notes: tuple[str, ...] = field(default=())
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[TableRow, ...]:
        """The rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)

    def notes_with(self, best: str, second: str, tied: str) -> tuple[str, ...]:
        """The notes, with the legend in a format's own marks."""
        return (self.legend.format(best=best, second=second, tied=tied), *self.notes) if self.legend else self.notes
