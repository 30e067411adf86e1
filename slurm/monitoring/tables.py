"""Tables of a screen: figures are never cut, names and prose give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mmkd.formatting import shorten
from mmkd.terminal import printable

TITLE = "bold cyan"
GAP = 2
NARROWEST = 8

Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A table's column: `flexible` ones give way where it gets narrow; `since` is the width that shows it."""

    title: str
    right: bool = False
    flexible: Literal["", "name", "prose"] = ""
    since: int = 0
    style: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int, lines: int) -> RenderableType:
    """A titled table in at most `lines` lines, which ends with the number it leaves out; empty columns go."""
    shown = rows if len(rows) < lines else rows[: max(lines - 2, 1)]
    kept = [i for i, c in enumerate(columns) if width >= c.since and (i == 0 or any(str(row[i]) for row in rows))]
    widths = _widths([columns[i] for i in kept], [[row[i] for i in kept] for row in shown], width)
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style=TITLE)
    for i, room in zip(kept, widths, strict=True):
        column = columns[i]
        justify: JustifyMethod = "right" if column.right else "left"
        drawn.add_column(shorten(column.title, room), justify=justify, no_wrap=True, width=room, style=column.style)
    for row in shown:
        drawn.add_row(*(cell(row[i], columns[i], room) for i, room in zip(kept, widths, strict=True)))
    more = len(rows) - len(shown) if lines > 2 else 0
    return Group(drawn, Text(f"… and {more:,} more", style="dim")) if more else drawn


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """The columns' widths: as their words want, but that the widest flexible ones give way."""
    widths = [max(cell_len(str(row[i])) for row in [*rows, [c.title for c in columns]]) for i in range(len(columns))]
    flexible = [i for i, column in enumerate(columns) if column.flexible]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def cell(content: Cell, column: Column, width: int) -> Text:
    """A cell in one line: a name loses its middle, prose its end."""
    text = Text(content) if isinstance(content, str) else content.copy()
    if column.flexible == "name":
        text.plain = shorten(text.plain, width)
    text.truncate(width, overflow="ellipsis")
    return text


@dataclass(frozen=True)
class Unsteered:
    """`inside`, in which control characters that files hold (labels, messages, names of nodes) are spelled out."""

    inside: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inside, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
