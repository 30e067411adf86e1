"""A table as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.tables.model import ARROWS, Cell, Table


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown."""
    labels = [_plain(column.label + ARROWS[column.better]) for column in table.columns]
    lines = [f"### {_plain(table.title)}", "", *([f"**{_plain(table.verdict)}**", ""] if table.verdict else [])]
    lines += [*([_plain(table.subtitle), ""] if table.subtitle else [])]
    lines.append(_line(["", *labels]))
    lines.append(_line([":--", *("--:" for _ in table.columns)]))
    for section in table.sections:
        if section.title is not None:
            lines.append(_line([f"**{_plain(section.title)}**", *("" for _ in table.columns)]))
        for row in section.rows:
            lines.append(_line([_plain(row.shown), *(_marked(row.cells[column.key]) for column in table.columns)]))
    for number, footnote in enumerate(table.footnotes, start=1):
        lines += ["", f"<sup>{number}</sup> {_plain(footnote)}"]
    for warning in table.warnings:
        lines += ["", f"> **WARNING:** {_plain(warning)}"]
    lines += ["", *(f"- {_plain(note)}" for note in table.notes_with("bold", "underlined"))]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """`text` with what Markdown would read as markup escaped, and without line breaks."""
    return re.sub(r"([\\`*_<>|\[\]#&~$])", r"\\\1", " ".join(text.split()))


def _marked(cell: Cell) -> str:
    """A cell's text with its marks."""
    mark = {1: "**{}**", 2: "<ins>{}</ins>"}.get(cell.rank or 0, "{}") if cell.text else "{}"
    footnote = "" if cell.footnote is None else f"<sup>{cell.footnote}</sup>"
    return mark.format(_plain(cell.text)) + (f" {cell.mark}" if cell.mark else "") + footnote
