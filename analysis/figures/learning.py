"""Learning curves: a metric over the epochs of the final runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import CONTROL, ROW, drawing_on, entry, legend_above, shown
from analysis.loading.frames import Floats
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, nothing
from mmkd.errors import choose
from mmkd.formatting import count
from mmkd.result_file import Status


@dataclass(frozen=True)
class LearningCurve:
    """A metric of a row's final runs, epoch by epoch.

    Attributes:
        title: the row's.
        wanted: how many final runs the study asks for.
        replicates: of the row; they have as many seeds each.
        seeds: seed of the configuration -> its values (E_s,), epochs 1 to E_s; runs that diverged or are not finished
            are among them.
        best: seed -> the epoch of lowest validation loss, whose weights are the run's.
        completed: seeds that the mean is over.
        mean: (E,) over completed runs; empty where there is none.
        spread: (E,) their sample standard deviation; zeros where there is one.
    """

    title: str
    wanted: int
    replicates: int
    seeds: Mapping[int, Floats]
    best: Mapping[int, int]
    completed: tuple[int, ...]
    mean: Floats
    spread: Floats

    @property
    def count(self) -> str:
        """The number of runs that the mean is over: "5 seeds", "4 of 5 seeds"; of replicates "16 runs"."""
        done, wanted = len(self.completed), count(self.wanted, "seed" if self.replicates == 1 else "run")
        return wanted if done == self.wanted else f"{done} of {wanted}"


def learning_curve_data(runs: Runs, row: RowRuns, metric: str) -> LearningCurve:
    """The curve of a row.

    Raises:
        UserError: no run has an epoch, or no run recorded that metric.
    """
    curves = runs.curves_of(list(row.final_runs["directory"].dropna()))
    if curves.empty:
        raise nothing(row, "final run with an epoch")
    choose("metric", metric, [name for name in curves.columns if name not in ("directory", "epoch")])
    seeds: dict[int, Floats] = {}
    best: dict[int, int] = {}
    completed = []
    for seed, line in row.final_runs.iterrows():
        values = curves[curves["directory"] == line["directory"]].sort_values("epoch")[metric].dropna()
        if values.empty:
            continue
        number = int(str(seed))
        seeds[number] = values.to_numpy(np.float64)
        if line["status"] == Status.COMPLETE:
            completed.append(number)
            best[number] = int(line["best_epoch"])
    if not seeds:
        raise nothing(row, "final run with an epoch")
    mean, spread = _mean_and_spread([seeds[number] for number in completed])
    return LearningCurve(
        row.title, len(row.final_runs), len(row.replicates), seeds, best, tuple(completed), mean, spread
    )


def _mean_and_spread(curves: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Over curves of equal length, or as far as the shortest goes."""
    if not curves:
        return np.zeros(0), np.zeros(0)
    together = np.stack([curve[: min(map(len, curves))] for curve in curves])
    return together.mean(0), together.std(0, ddof=1) if len(curves) > 1 else np.zeros(together.shape[1])


def learning_curve(
    runs: Runs, study: str, row: str, metric: str = "valid_loss", ax: Axes | None = None, legend: bool = True
) -> Axes:
    """A row's learning curve, before the control's: seeds thin, mean and a band of one sample standard deviation.

    A dot is the epoch whose weights a run keeps; a thin line without one diverged, or has not ended. `metric` is a
    column of `runs.curves_of`.

    Raises:
        UserError: there is nothing to draw.
    """
    found = collect(runs, study)
    chosen = found.row(row)
    mine, control = learning_curve_data(runs, chosen, metric), found.control_of(chosen)
    with drawing_on(ax) as ax:
        if control is not None:
            draw_learning_curve(learning_curve_data(runs, control, metric), metric, ax, CONTROL, "--")
        draw_learning_curve(mine, metric, ax, ROW, "-")
        if legend:
            legend_above(ax, "mean ± SD over final runs" if mine.replicates > 1 else "mean ± SD over seeds")
    return ax


def draw_learning_curve(curve: LearningCurve, metric: str, ax: Axes, colour: str, line: str) -> None:
    """Add one curve to `ax`."""
    label, factor = shown(metric)
    for seed, values in curve.seeds.items():
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, factor * values, line, color=colour, linewidth=0.5, alpha=0.45)
        if curve.best.get(seed, 0) in epochs:
            at = curve.best[seed]
            ax.plot(at, factor * values[at - 1], "o", color=colour, markersize=2.2, markeredgewidth=0)
    epochs = np.arange(1, len(curve.mean) + 1)
    low, high = factor * (curve.mean - curve.spread), factor * (curve.mean + curve.spread)
    ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(epochs, factor * curve.mean, line, color=colour, label=entry(f"{curve.title} ({curve.count})"))
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel(label)
