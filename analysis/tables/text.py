"""A table for a terminal: aligned columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Console, RenderableType
from rich.table import Table as Grid

from analysis.tables.model import ARROWS, Cell, Column, Section, Table

GAP = 2
BEST, SECOND = "◆", "◇"
WARNING = "WARNING: "
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


MAIN = ("accuracy", "difference", "p", "seeds", "gap", "effect", "weighted_f1", "macro_f1", "trials", "cost")
"""Columns in the order of their weight, for short tables that have no room for all."""


def to_text(table: Table, width: int = 100, *, short: bool = False) -> str:
    """The table in aligned columns of `width` characters; columns that do not fit follow in further blocks.

    With `short`, they are only named, notes are the short ones, and warnings end after two lines.
    """
    console = Console(width=10**6, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        for part in _parts(table, width, short and table.brief is not None):
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _parts(table: Table, width: int, short: bool) -> Iterator[RenderableType]:
    longest = max((len(row.shown) + 2 for row in table.rows), default=0)
    first = min(longest, max(18, width // 4))
    shown = _main_columns(table, width - first) if short else table.columns
    blocks = list(_blocks(table, shown, width - first))
    rule = "─" * max(_width(first, block) for block in blocks)
    if table.verdict:
        yield "\n".join([*wrap(table.verdict, width), ""])
    yield "\n".join(wrap(table.title, width))
    if table.subtitle:
        yield "\n".join(wrap(table.subtitle, width))
    for block in blocks:
        yield rule
        yield _header(first, block)
        yield rule
        for section in table.sections:
            if section.title is not None:
                yield "\n".join(wrap(section.title, _width(first, block)))
            yield _body(section, first, block)
    yield rule
    texts = [(f"{number} ".translate(SUPERSCRIPT), text) for number, text in enumerate(table.footnotes, start=1)]
    texts += [(WARNING, warning) for warning in table.warnings]
    texts += [("- ", note) for note in table.notes_with(BEST, SECOND, short=short)]
    left_out = [_heading(column) for column in table.columns if column not in shown]
    if left_out:
        texts.append(("- ", f"no room for {', '.join(left_out)}: widen the terminal, choose --columns, or --notes all"))
    for lead, text in texts:
        lines = wrap(text, width, initial_indent=lead, subsequent_indent=" " * len(lead))
        if short and lead == WARNING and len(lines) > 2:
            lines = [lines[0], f"{lines[1][: width - 2]} …"]
        yield "\n".join(lines)


@dataclass(frozen=True)
class _Shown:
    """A column as it is shown: its label in lines, its width, and how much of that is for marks behind the text."""

    key: str
    label: str
    width: int
    marks: int


def _shown(table: Table, column: Column) -> _Shown:
    cells = [row.cells[column.key] for row in table.rows]
    marks = max((len(marks_of(cell)) for cell in cells), default=0)
    label = column.label + ARROWS[column.better]
    width = max([max((len(_plain(cell)) for cell in cells), default=0) + marks, *map(len, label.split(" "))])
    lines = wrap(label, width, break_on_hyphens=False)  # textwrap does not break at no-break spaces
    return _Shown(column.key, "\n".join(lines).replace("\N{NO-BREAK SPACE}", " "), width, marks)


def _heading(column: Column) -> str:
    return column.label.replace("\N{NO-BREAK SPACE}", " ")


def _main_columns(table: Table, room: int) -> Sequence[Column]:
    """The weightiest columns that fit beside the labels, in the table's order."""
    if sum(GAP + _shown(table, column).width for column in table.columns) <= room:
        return table.columns
    weights = {key: number for number, key in enumerate(MAIN)}
    chosen: list[Column] = []
    for column in sorted(table.columns, key=lambda column: weights.get(column.key, len(weights))):
        if not chosen or _width(0, [_shown(table, one) for one in [*chosen, column]]) <= room:
            chosen.append(column)
    return [column for column in table.columns if column in chosen]


def _blocks(table: Table, columns: Sequence[Column], room: int) -> Iterator[list[_Shown]]:
    """As many columns at a time as fit beside the labels."""
    block: list[_Shown] = []
    for column in columns:
        shown = _shown(table, column)
        if block and _width(0, [*block, shown]) > room:
            yield block
            block = []
        block.append(shown)
    yield block


def _width(first: int, block: Sequence[_Shown]) -> int:
    return first + sum(GAP + column.width for column in block)


def _grid(first: int) -> Grid:
    grid = Grid.grid()
    grid.add_column(width=first, overflow="fold")
    return grid


def _header(first: int, block: Sequence[_Shown]) -> Grid:
    grid = _grid(first)
    for column in block:
        grid.add_column(width=GAP + column.width, justify="right", vertical="bottom")
    grid.add_row("", *(column.label for column in block))
    return grid


def _body(section: Section, first: int, block: Sequence[_Shown]) -> Grid:
    """The rows; marks have separate columns, so that the texts before them are aligned."""
    grid = _grid(first)
    for column in block:
        grid.add_column(width=GAP + column.width - column.marks, justify="right", no_wrap=True)
        if column.marks:
            grid.add_column(width=column.marks, no_wrap=True)
    for row in section.rows:
        cells = [(row.cells[column.key], column.marks) for column in block]
        texts = [text for cell, marks in cells for text in (_plain(cell), marks_of(cell))[: 2 if marks else 1]]
        grid.add_row("\n".join(wrap(row.shown, first, subsequent_indent="  ")), *texts)
    return grid


def _plain(cell: Cell) -> str:
    return cell.text if cell.footnote is None else cell.text + str(cell.footnote).translate(SUPERSCRIPT)


def marks_of(cell: Cell) -> str:
    """Best, second, and tied with the best or not tested."""
    return {1: BEST, 2: SECOND}.get(cell.rank or 0, "") + cell.mark
