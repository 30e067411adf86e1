"""A table as text: one function a format. Equal tables give equal text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap

from analysis.model import Cell, Column, Section, Table, TableRow

GAP = "  "
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def to_text(table: Table, width: int = 100) -> str:
    """The table in aligned columns of `width` characters; columns that do not fit follow in further blocks."""
    blocks = list(_blocks(table, width))
    rule = "─" * max(len(line) for block in blocks for line in block)
    lines = wrap(table.title, width)
    for block in blocks:
        lines += [rule if line == "" else line for line in block]
    lines.append(rule)
    for number, footnote in enumerate(table.footnotes, start=1):
        lines += _paragraph(_superscript(number) + " ", footnote, width)
    for warning in table.warnings:
        lines += _paragraph("WARNING: ", warning, width)
    for note in table.notes:
        lines += _paragraph("- ", note, width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown."""
    lines = [f"### {_escaped(table.title)}", "", _line(["", *(_escaped(column.label) for column in table.columns)])]
    lines.append(_line([":--", *("--:" for _ in table.columns)]))
    for section in table.sections:
        if section.title is not None:
            lines.append(_line([f"**{_escaped(section.title)}**", *("" for _ in table.columns)]))
        for row in section.rows:
            cells = [_marked(row.cells[column.key], "<sup>{}</sup>") for column in table.columns]
            lines.append(_line([_escaped(_label(row)), *cells]))
    for number, footnote in enumerate(table.footnotes, start=1):
        lines += ["", f"<sup>{number}</sup> {_escaped(footnote)}"]
    for warning in table.warnings:
        lines += ["", f"> **WARNING:** {_escaped(warning)}"]
    lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {"txt": to_text, "md": to_markdown}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text.replace("\n", " "))


def _label(row: TableRow) -> str:
    return f"{row.label} ({row.status})" if row.status else row.label


def _marked(cell: Cell, template: str) -> str:
    return cell.text if cell.footnote is None else cell.text + template.format(cell.footnote)


def _superscript(number: int) -> str:
    return str(number).translate(SUPERSCRIPT)


def _paragraph(lead: str, text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent=lead, subsequent_indent=" " * len(lead))


def _blocks(table: Table, width: int) -> Iterator[list[str]]:
    """Blocks of lines, each with the rows' labels and as many columns as fit; an empty line stands for a rule."""
    longest = max((len(_label(row)) + 2 for section in table.sections for row in section.rows), default=0)
    first = min(longest, max(18, width // 4))
    columns = [(column, *_header(table, column)) for column in table.columns]
    while columns:
        room, taken = width - first, 0
        while taken < len(columns) and (taken == 0 or room >= len(GAP) + columns[taken][1]):
            room -= len(GAP) + columns[taken][1]
            taken += 1
        yield _block(table.sections, first, columns[:taken])
        columns = columns[taken:]


def _header(table: Table, column: Column) -> tuple[int, list[str]]:
    """A column's width, and its label in lines."""
    cells = [_text(row.cells[column.key]) for section in table.sections for row in section.rows]
    width = max(map(len, [*cells, *column.label.split()]))
    return width, wrap(column.label, width)


def _text(cell: Cell) -> str:
    return cell.text if cell.footnote is None else cell.text + _superscript(cell.footnote)


def _block(sections: Sequence[Section], first: int, columns: Sequence[tuple[Column, int, list[str]]]) -> list[str]:
    height = max(len(header) for _, _, header in columns)
    lines = [""]
    for k in range(height):
        header = [([""] * height + header)[k - height] for _, _, header in columns]
        lines.append(_aligned("", first, header, columns))
    lines.append("")
    for section in sections:
        if section.title is not None:
            lines.append(section.title)
        for row in section.rows:
            label, *more = wrap(_label(row), first, subsequent_indent="  ") or [""]
            lines.append(_aligned(label, first, [_text(row.cells[column.key]) for column, _, _ in columns], columns))
            lines += more
    return lines


def _aligned(label: str, first: int, cells: Sequence[str], columns: Sequence[tuple[Column, int, list[str]]]) -> str:
    return GAP.join([label.ljust(first), *(c.rjust(width) for c, (_, width, _) in zip(cells, columns, strict=True))])
