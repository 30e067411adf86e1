"""The ablation table as a picture, with a forest plot of the differences beside its numbers."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from analysis.figures.forest import draw_difference, line_places
from analysis.figures.style import CONTROL, SMALL, house_style, inches_of, plain, wrapped
from analysis.loading.runs import Runs
from analysis.tables.ablation import table
from analysis.tables.model import ARROWS, Column, Table, TableRow
from analysis.tables.text import BEST, SECOND, marks_of
from mmkd.errors import UserError

BEFORE, AFTER = ("accuracy", "seeds", "parameters"), ("difference", "p")
"""Columns at the left and at the right of the plot."""
LABEL, PLOT = 2.2, 1.6
"""Inches: the widest label, and the plot."""
MARGIN, GAP, LINE, NOTE = 0.08, 0.13, 0.17, 0.11
"""Inches: around everything, between columns, and the heights of a row and of a line of a note."""


def table_with_forest(runs: Runs, study: str) -> Figure:
    """A study's table, its differences to the control as a forest plot too, and its warnings.

    Bars are the table's 95 % intervals, of one comparison each. A square is filled if Holm's p is below 5 %.

    Raises:
        UserError: there is no such study, or no row can be compared with a control yet.
    """
    shown = table(runs, study, columns=(*BEFORE, *AFTER))
    if not any(row.cells["difference"].difference for row in shown.rows):
        raise UserError(f"study {study}: no row can be compared with a control yet")
    with house_style():
        return _draw(shown)


def _draw(shown: Table) -> Figure:
    lines = [line for section in shown.sections for line in (section.title, *section.rows) if line is not None]
    labels = [wrapped(line.shown if isinstance(line, TableRow) else line, LABEL, SMALL) for line in lines]
    label = max(inches_of(part, SMALL) for text in labels for part in text.split("\n"))
    widths = [max(inches_of(text, SMALL) for text in _texts(shown, column)) + GAP for column in shown.columns]
    taken = label + sum(widths) + GAP + 2 * MARGIN
    width = taken + PLOT
    title = wrapped(shown.title, 0.9 * (width - 2 * MARGIN), SMALL)  # bold is wider
    notes = "\n".join(wrapped(text, width - 2 * MARGIN, SMALL) for text in _notes(shown))
    places, end = line_places(labels)
    heading = MARGIN + NOTE * (title.count("\n") + 1) + LINE
    top, bottom = heading + 0.8 * LINE, MARGIN + 2.5 * LINE + NOTE * (notes.count("\n") + 1)
    height = top + LINE * end + bottom
    left = MARGIN + label + sum(widths[: len(BEFORE)]) + GAP

    figure = Figure(figsize=(width, height))
    plot = figure.add_axes((left / width, bottom / height, PLOT / width, LINE * end / height))
    plot.set(ylim=(end, 0), yticks=[])
    plot.set_xlabel("accuracy, points above the control", fontsize=SMALL)
    plot.tick_params(labelsize=SMALL, length=2.5)
    plot.spines["left"].set_visible(False)
    plot.axvline(0, color=CONTROL, linewidth=0.8, linestyle="--")

    def write(text: str, x: float, y: float, **looks: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=SMALL, **{"va": "center", **looks})

    rights = [MARGIN + label + sum(widths[: number + 1]) for number in range(len(BEFORE))]
    rights += [width - MARGIN - sum(widths[number + 1 :]) for number in range(len(BEFORE), len(widths))]
    for column, x in zip(shown.columns, rights, strict=True):
        write(plain(column.label + ARROWS[column.better]), x, heading, ha="right")
    for text, line, place in zip(labels, lines, places, strict=True):
        y = top + LINE * place
        write(text, MARGIN, y, ha="left", fontweight="normal" if isinstance(line, TableRow) else "bold")
        if isinstance(line, TableRow):
            for column, x in zip(shown.columns, rights, strict=True):
                write(_text(line, column), x, y, ha="right")
            difference = line.cells["difference"].difference
            if difference is not None:
                draw_difference(difference, place, plot)
    write(title, MARGIN, MARGIN, ha="left", va="top", fontweight="bold")
    write(notes, MARGIN, height - MARGIN, ha="left", va="bottom", color=CONTROL)
    return figure


def _texts(shown: Table, column: Column) -> list[str]:
    """A column's label and cells."""
    return [column.label + ARROWS[column.better], *(_text(row, column) for row in shown.rows)]


def _text(row: TableRow, column: Column) -> str:
    """A cell with its marks."""
    cell = row.cells[column.key]
    return cell.text + marks_of(cell)


def _notes(shown: Table) -> list[str]:
    """The warnings, and the legend of the marks."""
    legend = shown.legend.format(best=BEST, second=SECOND)
    return [*(f"WARNING: {warning}" for warning in shown.warnings), legend]
