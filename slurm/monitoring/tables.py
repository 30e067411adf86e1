"""Tables of a screen: figures are never cut, names and prose are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

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
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A table's column: `value` makes an item's cell; `since` is the terminal's width that shows the column.

    `flexible` columns become narrower where space is short: names lose their middle, prose its end.
    """

    title: str
    value: Callable[[T], Cell]
    right: bool = False
    flexible: Literal["", "name", "prose"] = ""
    since: int = 0
    style: str = ""


def table(columns: Sequence[Column[T]], items: Sequence[T], width: int, lines: int) -> RenderableType:
    """A titled table in at most `lines` lines, which ends with the number it leaves out; empty columns go."""
    rows = [[Text(c) if isinstance(c := column.value(item), str) else c for column in columns] for item in items]
    shown = rows if len(rows) < lines else rows[: max(lines - 2, 1)]
    kept = [i for i, c in enumerate(columns) if width >= c.since and (i == 0 or any(row[i].plain for row in rows))]
    widths = _widths([columns[i] for i in kept], [[row[i] for i in kept] for row in shown], width)
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style=TITLE)
    for i, room in zip(kept, widths, strict=True):
        column = columns[i]
        justify: JustifyMethod = "right" if column.right else "left"
        drawn.add_column(shorten(column.title, room), justify=justify, no_wrap=True, width=room, style=column.style)
        if column.flexible == "name":
            for row in shown:
                row[i].plain = shorten(row[i].plain, room)
    for row in shown:
        drawn.add_row(*(row[i] for i in kept))
    more = len(rows) - len(shown) if lines > 2 else 0
    return Group(drawn, Text(f"… and {more:,} more", style="dim")) if more else drawn


def _widths(columns: Sequence[Column[T]], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The columns' widths: as wide as their cells, but the widest flexible ones become narrower if necessary."""
    widths = [max(cell_len(c.title), *(row[i].cell_len for row in rows), 0) for i, c in enumerate(columns)]
    flexible = [i for i, column in enumerate(columns) if column.flexible]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


@dataclass(frozen=True)
class Unsteered:
    """`inside`, in which control characters that files hold (labels, messages, names of nodes) are spelled out."""

    inside: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inside, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
