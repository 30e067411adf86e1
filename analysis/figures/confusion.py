"""Confusion matrices of a row's final runs, from the predictions that they stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from analysis.figures.style import DOUBLE, LIGHT, LINE, SINGLE, SMALL, drawing_on, plain, wrapped
from analysis.loading.predictions import predictions
from analysis.loading.replicate_runs import scored
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, nothing
from mmkd.errors import UserError
from mmkd.formatting import count
from mmkd.metrics import confusion_counts
from mmkd.records import RowRecord, read_record
from mmkd.result_file import ResultError
from mmkd.rundir import RowDir

FEW = 10
"""Up to so many classes every cell has its number, and the matrix fits one column."""


@dataclass(frozen=True)
class Confusion:
    """`counts` (C, C) of class r (row) predicted as c (column), summed over `runs` final runs on test, of several
    `replicates` or one."""

    title: str
    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    runs: int
    replicates: int = 1

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each row divided by its sum, NaN for a class that does not occur: the diagonal is the recall."""
        sums = self.counts.sum(1, keepdims=True)
        shares = np.full(self.counts.shape, np.nan)
        np.divide(self.counts, sums, out=shares, where=sums > 0)
        return shares


def confusion_data(runs: Runs, row: RowRuns) -> Confusion:
    """See `Confusion`.

    Raises:
        UserError: no final run has a score, or its predictions cannot be read.
    """
    done = scored(row.final_runs)["directory"]
    if done.empty:
        raise nothing(row, "score on test")
    names = read_record(RowDir(runs.root / "rows" / row.spec.directory).row, RowRecord).data.classes
    counts = np.zeros((len(names), len(names)), np.int64)
    for directory in done:
        try:
            found = predictions(runs.root / directory)["test"]
        except (OSError, ResultError) as error:
            raise UserError(f"{row.title}: {error}") from None
        if found.logits.shape[1] != len(names):
            raise UserError(
                f"{row.title}: row.json names {len(names)} classes, {directory} has {found.logits.shape[1]}"
            )
        counts += confusion_counts(found.labels, found.logits.argmax(1), len(names))
    return Confusion(row.title, names, counts, len(done), len(row.replicates))


def confusion(runs: Runs, study: str, row: str, ax: Axes | None = None) -> Axes:
    """The confusion matrix of a row on test, summed over its seeds, in shares of the true class.

    Raises:
        UserError: there is nothing to draw.
    """
    data = confusion_data(runs, collect(runs, study).row(row))
    few = len(data.classes) <= FEW
    size = SINGLE if few else min(DOUBLE, 1.6 + 0.17 * len(data.classes))
    title = wrapped(data.title, 0.6 * size)
    with drawing_on(ax, width=size, height=0.92 * size + LINE * title.count("\n")) as ax:
        image = ax.imshow(data.shares, cmap=LIGHT, vmin=0, vmax=1, interpolation="nearest")
        names = [plain(name) for name in data.classes]
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set_visible(False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        ax.set_title(f"{title}\ntest, {count(data.runs, 'seed' if data.replicates == 1 else 'run')}")
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        if few:
            _number_cells(data, ax)
    return ax


def _number_cells(data: Confusion, ax: Axes) -> None:
    """Each cell's share in per cent, light on dark and dark on light."""
    for (true, predicted), share in np.ndenumerate(data.shares):
        if share == share:
            colour = "white" if share > 0.5 else "black"
            ax.text(predicted, true, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=SMALL)
