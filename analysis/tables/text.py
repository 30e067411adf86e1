"""A table for a terminal: aligned columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.cells import cell_len

from analysis.tables.model import Cell, Column, Section, Table

GAP = "  "
BEST, SECOND, TIED = "◆", "◇", "≈"
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ARROWS = {"higher": "\N{NO-BREAK SPACE}↑", "lower": "\N{NO-BREAK SPACE}↓", None: ""}


def to_text(table: Table, width: int = 100) -> str:
    """The table in aligned columns of `width` characters; columns that do not fit follow in further blocks."""
    blocks = list(_blocks(table, width))
    rule = "─" * max((len(line) for block in blocks for line in block), default=0)
    lines = wrap(table.title, width)
    for block in blocks:
        lines += [rule if line == "" else line for line in block]
    lines.append(rule)
    for number, footnote in enumerate(table.footnotes, start=1):
        lines += _paragraph(_superscript(number) + " ", footnote, width)
    for warning in table.warnings:
        lines += _paragraph("WARNING: ", warning, width)
    for note in table.notes_with(BEST, SECOND, TIED):
        lines += _paragraph("- ", note, width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _paragraph(lead: str, text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent=lead, subsequent_indent=" " * len(lead))


def _superscript(number: int) -> str:
    return str(number).translate(SUPERSCRIPT)


def _blocks(table: Table, width: int) -> Iterator[list[str]]:
    """Blocks of lines, each with the rows' labels and as many columns as fit; an empty line stands for a rule."""
    longest = max((len(row.shown) + 2 for row in table.rows), default=0)
    first = min(longest, max(18, width // 4))
    columns = [_Shown(table, column) for column in table.columns]
    while columns:
        room, taken = width - first, 0
        while taken < len(columns) and (taken == 0 or room >= len(GAP) + columns[taken].width):
            room -= len(GAP) + columns[taken].width
            taken += 1
        yield _block(table.sections, first, columns[:taken])
        columns = columns[taken:]


class _Shown:
    """A column as it is shown: its label in lines, its width, and how much of that is for marks behind the text."""

    def __init__(self, table: Table, column: Column) -> None:
        cells = [row.cells[column.key] for row in table.rows]
        self.key = column.key
        self.marks = max((len(_marks(cell)) for cell in cells), default=0)
        # The arrow stays with the word before it.
        words = (column.label + ARROWS[column.better]).split(" ")
        texts = max((len(_plain(cell)) for cell in cells), default=0)
        self.width = max([texts + self.marks, *map(len, words)])
        self.header = _wrapped(words, self.width)

    def text(self, cell: Cell) -> str:
        return (_plain(cell) + _marks(cell).ljust(self.marks)).rjust(self.width)


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    """Lines of words; unlike textwrap, this leaves no-break spaces alone."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _plain(cell: Cell) -> str:
    return cell.text if cell.footnote is None else cell.text + _superscript(cell.footnote)


def _marks(cell: Cell) -> str:
    """Best, second and tied with the best; the best is tied with itself, which needs no saying."""
    if cell.rank == 1:
        return BEST
    return (SECOND if cell.rank == 2 else "") + (TIED if cell.tied else "")


def _block(sections: Sequence[Section], first: int, columns: Sequence[_Shown]) -> list[str]:
    height = max(len(column.header) for column in columns)
    lines = [""]
    for k in range(height):
        header = [([""] * height + column.header)[k - height].rjust(column.width) for column in columns]
        lines.append(GAP.join(["".ljust(first), *header]))
    lines.append("")
    for section in sections:
        if section.title is not None:
            lines += wrap(section.title, first + sum(len(GAP) + column.width for column in columns))
        for row in section.rows:
            label, *more = wrap(row.shown, first, subsequent_indent="  ") or [""]
            cells = [column.text(row.cells[column.key]) for column in columns]
            padding = " " * (first - cell_len(label))  # characters of double width count as two
            lines += [GAP.join([label + padding, *cells]), *more]
    return lines
