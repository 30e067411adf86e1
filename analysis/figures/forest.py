"""A forest plot: the difference of each row to the control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from analysis.figures.style import CONTROL, ROW, SINGLE, SMALL, drawing_on, shown, wrapped
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, nothing
from analysis.stats.replicates import METRICS
from analysis.stats.scores import Difference, score_rows
from analysis.stats.uncertainty import ALPHA
from mmkd.errors import UserError, choose

LABELS = 1.25
"""Inches for labels, which leaves room for the plot in one column of a paper."""


@dataclass(frozen=True)
class Compared:
    """A row and its difference to the control in points, None where the two cannot be compared (yet).

    `n` counts what the table's does: seeds, or replicates.
    """

    label: str
    group: str | None
    difference: Difference | None
    n: int


def forest_data(runs: Runs, rows: Sequence[RowRuns], control: RowRuns, metric: str) -> list[Compared]:
    """All rows with a control, in their order, with the table's own differences in a metric of `METRICS`."""
    cells = score_rows(runs, rows, control, "sd")[metric]
    return [
        Compared(row.spec.label, row.spec.group, cells[row.spec.name].difference, cells[row.spec.name].n or 0)
        for row in rows
        if row.control is not None
    ]


def forest(runs: Runs, study: str, metric: str = "accuracy", ax: Axes | None = None) -> Axes:
    """The differences of all rows to their controls on test, in the study's order and groups.

    Bars are the table's 95 % intervals, of one comparison each. A square is filled where p, corrected for all of the
    comparisons (Holm), is below 5 %. At the right the number of seeds or replicates; a dash is a row that has nothing
    to compare.

    Raises:
        UserError: the study names no control, the control has no score, or no other row can be compared with it.
    """
    choose("metric", metric, METRICS)
    found = collect(runs, study)
    control = found.control
    if control is None:
        raise UserError(f"study {study}: no row to measure from; name one by 'control' in the study file")
    if control.measured.empty:
        raise nothing(control, "score on test, and it is the control")
    data = forest_data(runs, found.rows, control, metric)
    if all(compared.difference is None for compared in data):
        raise UserError(f"study {study}: no row can be compared with the control yet")
    lines = list(_lines(data))
    height = 0.85 + 0.17 * line_places([text for text, _ in lines])[1]
    with drawing_on(ax, width=SINGLE, height=height) as ax:
        _draw(lines, ax)
        name = shown(f"test_{metric}").label.removesuffix(" (%)")
        several = len({row.control for row in found.rows} - {None}) > 1
        against = "the row's control" if several else wrapped(f"“{control.spec.label}”", 1.9)
        ax.set_xlabel(f"{name}, points above\n{against}\n(95 % intervals; filled: Holm p < .05)")
    return ax


def _lines(data: Sequence[Compared]) -> Iterator[tuple[str, Compared | None]]:
    """Labels from top to bottom; a group's name stands before its rows, with nothing to draw."""
    for group, members in groupby(data, key=lambda compared: compared.group):
        if group is not None:
            yield wrapped(group, 0.9 * LABELS, SMALL), None  # bold is wider
        for compared in members:
            yield wrapped(compared.label, LABELS, SMALL), compared


def line_places(texts: Sequence[str]) -> tuple[npt.NDArray[np.float64], float]:
    """The middle of each text from the top and the end of the last, in heights of a line; further lines take less."""
    ends = np.cumsum([1 + 0.7 * text.count("\n") for text in texts])
    return (np.insert(ends[:-1], 0, 0.0) + ends) / 2, float(ends[-1])


def _draw(lines: Sequence[tuple[str, Compared | None]], ax: Axes) -> None:
    ax.axvline(0, color=CONTROL, linewidth=0.8, linestyle="--")
    places, end = line_places([text for text, _ in lines])
    for place, (_, compared) in zip(places, lines, strict=True):
        if compared is None:
            continue
        count = f"n = {compared.n}" if compared.difference else "\N{EN DASH}"
        ax.annotate(count, (1.01, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize=SMALL)
        if compared.difference is not None:
            draw_difference(compared.difference, place, ax)
    ax.set_yticks(places, [text for text, _ in lines])
    for tick, (_, compared) in zip(ax.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if compared is None else "normal")
    ax.set_ylim(end + 0.1, -0.1)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def draw_difference(difference: Difference, place: float, ax: Axes) -> None:
    """Draw a square, filled if Holm's p is below 5 %, and its 95 % interval."""
    if difference.low is not None and difference.high is not None:
        ax.plot([difference.low, difference.high], [place, place], color=ROW, linewidth=1)
    clear = difference.corrected is not None and difference.corrected < ALPHA
    ax.plot(difference.value, place, "s", color=ROW, markersize=3.5, markerfacecolor=ROW if clear else "white")
