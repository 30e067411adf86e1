"""A table as Markdown and as HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from analysis.tables.model import Cell, Column, Table
from analysis.tables.text import ARROWS, TIED

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 84rem; padding: 0 1rem; color: #1a1a1a; }
.mmkd-scroll { overflow-x: auto; }
.mmkd { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; border-bottom: 2px solid; }
.mmkd caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
.mmkd th, .mmkd td { padding: .25rem 1.3rem .25rem .1rem; text-align: right; white-space: nowrap; }
.mmkd th, .mmkd td { vertical-align: baseline; }
.mmkd thead th { border-top: 2px solid; border-bottom: 1px solid; font-weight: 500; white-space: normal; }
.mmkd thead th { vertical-align: bottom; }
.mmkd tbody th { font-weight: 400; text-align: left; white-space: normal; min-width: 12rem; }
.mmkd .mmkd-group th { font-style: italic; padding-top: .6rem; }
.mmkd u { text-underline-offset: .2em; }
.mmkd-tied { display: inline-block; width: 0; } /* in the padding, so that numbers stay aligned */
.mmkd-warning { border-left: 4px solid #b00020; background: #fdecee; padding: .4rem .7rem; margin: .4rem 0; }
.mmkd-notes { font-size: .85rem; color: #444; }
"""


MARKDOWN = ("**{}**", "<ins>{}</ins>", f" {TIED}")
HTML = ("<b>{}</b>", "<u>{}</u>", f'<span class="mmkd-tied">&#8239;{TIED}</span>')


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown."""
    labels = [_plain(column.label + ARROWS[column.better]) for column in table.columns]
    lines = [f"### {_plain(table.title)}", "", _line(["", *labels])]
    lines.append(_line([":--", *("--:" for _ in table.columns)]))
    for section in table.sections:
        if section.title is not None:
            lines.append(_line([f"**{_plain(section.title)}**", *("" for _ in table.columns)]))
        for row in section.rows:
            cells = [_marked(row.cells[column.key], _plain, MARKDOWN) for column in table.columns]
            lines.append(_line([_plain(row.shown), *cells]))
    for number, footnote in enumerate(table.footnotes, start=1):
        lines += ["", f"<sup>{number}</sup> {_plain(footnote)}"]
    for warning in table.warnings:
        lines += ["", f"> **WARNING:** {_plain(warning)}"]
    lines += ["", *(f"- {_plain(note)}" for note in table.notes_with("bold", "underlined", TIED))]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """`text` with what Markdown would read as markup escaped, and without line breaks."""
    return re.sub(r"([\\`*_<>|\[\]#&~$])", r"\\\1", " ".join(text.split()))


def _marked(cell: Cell, plain: Callable[[str], str], marks: tuple[str, str, str]) -> str:
    """A cell's text with its marks: templates of the best and the second, and what stands behind those tied."""
    best, second, tied = marks
    text = {1: best, 2: second}.get(cell.rank or 0, "{}").format(plain(cell.text)) if cell.text else ""
    footnote = "" if cell.footnote is None else f"<sup>{cell.footnote}</sup>"
    return text + (tied if cell.tied and cell.rank != 1 else "") + footnote


def to_html(table: Table) -> str:
    """The table as a page of its own, which needs nothing from elsewhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(table.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{html_table(table)}</body>\n"
        "</html>\n"
    )


def html_table(table: Table) -> str:
    """The table with its warnings and notes, for a page that has `STYLE`."""
    lines = ['<div class="mmkd-scroll">', '<table class="mmkd">', f"<caption>{escape(table.title)}</caption>"]
    lines += ["<thead><tr><th></th>", *map(_header, table.columns), "</tr></thead>", "<tbody>"]
    for section in table.sections:
        if section.title is not None:
            span = len(table.columns) + 1
            title = escape(section.title)
            lines.append(f'<tr class="mmkd-group"><th colspan="{span}" scope="rowgroup">{title}</th></tr>')
        for row in section.rows:
            cells = [_marked(row.cells[column.key], escape, HTML) for column in table.columns]
            data = "".join(f"<td>{cell}</td>" for cell in cells)
            lines.append(f'<tr><th scope="row">{escape(row.shown)}</th>{data}</tr>')
    lines += ["</tbody>", "</table>", "</div>"]
    lines += [
        f'<p class="mmkd-notes"><sup>{number}</sup> {escape(footnote)}</p>'
        for number, footnote in enumerate(table.footnotes, start=1)
    ]
    lines += [f'<p class="mmkd-warning"><b>Warning:</b> {escape(warning)}</p>' for warning in table.warnings]
    notes = table.notes_with("bold", "underlined", TIED)
    lines += ['<ul class="mmkd-notes">', *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _header(column: Column) -> str:
    return f'<th scope="col">{escape(column.label + ARROWS[column.better])}</th>'
