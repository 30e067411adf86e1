"""A row's tuning in parallel coordinates: one line per trial over all hyperparameters to its value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis.figures.style import (
    CONTROL,
    LINE,
    SMALL,
    WINNER,
    Shown,
    colour_bar,
    dark_colours,
    drawing_on,
    plain,
    shown,
    wrapped,
)
from analysis.figures.tuning import Tuning, tuning_data
from analysis.loading.frames import Floats
from analysis.loading.runs import Runs
from analysis.loading.study_rows import collect
from mmkd.errors import UserError


@dataclass(frozen=True)
class Scale:
    """One axis of parallel coordinates."""

    low: float
    high: float
    log: bool

    def place(self, values: npt.ArrayLike) -> Floats:
        """Values as heights, 0 at `low` and 1 at `high`."""
        ends = np.array([self.low, self.high])
        array = np.asarray(values, np.float64)
        if self.log:
            ends, array = np.log(ends), np.log(array)
        return np.asarray((array - ends[0]) / (ends[1] - ends[0]))

    def ticks(self) -> Floats:
        """A few round values between the ends."""
        if self.log:
            marks = np.asarray(LogLocator(subs=(1, 3), numticks=20).tick_values(self.low, self.high))
        else:
            marks = np.asarray(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high))
        slack = 1e-9 * abs(self.high)
        return marks[(marks >= self.low - slack) & (marks <= self.high + slack)]


@dataclass(frozen=True)
class ParallelCoordinates:
    """Trials as lines over axes, the selection metric last.

    `heights` (n, axes) is 0 to 1 on each axis's `scales`, NaN on the last where a trial has no value; `rank` (n,) is 0
    for the best trial and 1 for the worst, NaN where it has no value.
    """

    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    heights: Floats
    rank: Floats


def parallel_coordinates_data(tuning: Tuning) -> ParallelCoordinates:
    """See `ParallelCoordinates`.

    Raises:
        UserError: there are fewer than two hyperparameters, or fewer than two trials with a value.
    """
    if len(tuning.space) < 2:
        raise UserError(f"{tuning.title}: it tunes one hyperparameter or none, see its slice")
    values = tuning.complete["value"]
    if len(values) < 2:
        raise UserError(f"{tuning.title}: fewer than two trials have a value")
    factor = shown(tuning.metric).factor
    low, high = factor * values.min(), factor * values.max()
    high = high if high > low else low + 1.0
    scales = [Scale(space.low, space.high, space.log) for space in tuning.space.values()] + [Scale(low, high, False)]
    columns = [tuning.trials[name] for name in tuning.space] + [factor * tuning.trials["value"]]
    heights = np.stack([scale.place(column) for scale, column in zip(scales, columns, strict=True)], 1)
    ranks = values.rank(method="first", ascending=tuning.lower_is_better) - 1
    rank = np.asarray((ranks / max(len(values) - 1, 1)).reindex(tuning.trials.index), np.float64)
    return ParallelCoordinates((*tuning.space, tuning.metric), tuple(scales), heights, rank)


def parallel_coordinates(runs: Runs, study: str, row: str, ax: Axes | None = None) -> Axes:
    """One line per trial over its hyperparameters to its value, dark for good trials and drawn over the others.

    A dotted grey line is a trial without a value.

    Raises:
        UserError: see `parallel_coordinates_data`; or no trial has ended.
    """
    tuning = tuning_data(runs, collect(runs, study).row(row))
    data = parallel_coordinates_data(tuning)
    width = 1.1 * len(data.names) + 1.6
    title = wrapped(tuning.title, width - 1.4)  # the middle of the axes is left of the figure's
    with drawing_on(ax, width=width, height=2.4 + LINE * title.count("\n")) as ax:
        trials = int(np.sum(~np.isnan(data.rank)))
        colours = dark_colours(1, trials)
        for number in np.argsort(-np.nan_to_num(data.rank, nan=2.0), kind="stable"):
            if np.isnan(data.rank[number]):
                ax.plot(data.heights[number], ":", color=CONTROL, linewidth=0.8)
            else:
                best = data.rank[number] == 0
                colour = WINNER if best else colours.to_rgba(1 + data.rank[number] * (trials - 1))
                ax.plot(data.heights[number], color=colour, linewidth=1.6 if best else 0.8)
        _draw_scales(data, shown(tuning.metric), ax)
        ax.set_title(f"{title}\n(orange: the best trial)")
        colour_bar(colours, [ax], "rank of the trial (1: best)")
    return ax


def _draw_scales(data: ParallelCoordinates, metric: Shown, ax: Axes) -> None:
    """The axes of parallel coordinates with their ticks, in place of matplotlib's own."""
    last = len(data.scales) - 1
    for place, scale in enumerate(data.scales):
        ax.axvline(place, color="black", linewidth=0.6)
        ticks = scale.ticks()
        decimals = max(len(f"{tick:.6g}".partition(".")[2]) for tick in ticks)
        for value, height in zip(ticks, scale.place(ticks), strict=True):
            ax.annotate(
                f"{value:.6g}" if scale.log else f"{value:.{decimals}f}",
                (place, height),
                (3 if place == last else -3, 0),
                textcoords="offset points",
                ha="left" if place == last else "right",
                va="center",
                fontsize=SMALL,
                bbox={"facecolor": "white", "pad": 0.8, "linewidth": 0},  # no line through a number
                zorder=4,
            )
    names = [plain(name.replace("_", " ")) for name in data.names[:-1]]
    ax.set_xticks(range(len(data.names)), [*names, metric.label])
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_locator(NullLocator())
    ax.set_xlim(-0.45, len(data.names) - 0.55)
    ax.set_ylim(-0.04, 1.04)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
