"""A table as data, read by every format. Raw values are kept; only `text` is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.stats.scores import Score

TIED, UNTESTED = "≈", "?"
"""The marks of what is tied with the best, and of what cannot be tested against it."""
ARROWS = {"higher": "\N{NO-BREAK SPACE}↑", "lower": "\N{NO-BREAK SPACE}↓", None: ""}
"""What follows a column's label."""

Style = Literal[
    "spread", "mean", "ratio", "count", "times", "cost", "difference", "effect", "p", "gap", "interval", "rank"
]


@dataclass(frozen=True)
class Column:
    """A column, and whether more or less of it is better.

    `spread` shows mean ± error, `mean` the mean alone, `ratio` n or n/N, `count` a whole number, `times` a factor,
    `cost` minutes or hours, `difference` a difference and its interval, `effect` an effect size, `p` a p value, `gap` a
    whole number and its interval, `interval` the interval alone, `rank` a mean rank.
    """

    key: str
    label: str
    style: Style
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True)
class Cell(Score):
    """A value and its text, rounded.

    `footnote` is the 1-based number of a footnote. A cell without value has the text "–" and a footnote with the
    reason, or no text where it does not apply or the row's status has the reason. `interval` is the 95 % interval of
    a value that is no mean.
    """

    text: str = ""
    footnote: int | None = None
    interval: tuple[float, float] | None = None

    @property
    def mark(self) -> str:
        """`TIED` or `UNTESTED` beside what is not the best; the best is tied with itself, which needs no mark."""
        if self.rank == 1:
            return ""
        return TIED if self.tied else UNTESTED if self.is_untested else ""

    @classmethod
    def of(cls, score: Score) -> Cell:
        """The cell of a score, without text yet."""
        return cls(**vars(score))


@dataclass(frozen=True)
class TableRow:
    """One line; `status` is empty if the row is finished, else its progress or why it failed.

    A `reference` is the most frequent class, or an untuned linear model. `control` is the name of the row that it is
    compared with, None where it is none.
    """

    name: str
    label: str
    kind: Literal["teacher", "student", "reference"]
    status: str
    cells: Mapping[str, Cell]
    control: str | None = None

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

    `verdict` is its result in a sentence or two, `subtitle` a sentence below the title; both may be empty. `brief` are
    the notes in short; None: as `notes`. `legend` says what is marked as
    the best and the second best; {best} and {second} in it stand for a format's own marks. `provenance` is
    where each row comes from, as JSON values.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    legend: str = ""
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    subtitle: str = ""
    verdict: str = ""
    brief: tuple[str, ...] | None = None

    @property
    def rows(self) -> tuple[TableRow, ...]:
        """The rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)

    def notes_with(self, best: str, second: str, *, short: bool = False) -> tuple[str, ...]:
        """The notes, or those in short, with the legend in a format's own marks."""
        notes = self.notes if self.brief is None or not short else self.brief
        return (self.legend.format(best=best, second=second), *notes) if self.legend else notes
