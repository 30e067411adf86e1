"""Tuning of a row: the best value so far, and slices along each hyperparameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from analysis.figures.style import (
    CONTROL,
    ROW,
    WINNER,
    colour_bar,
    dark_colours,
    drawing_on,
    entry,
    legend_above,
    plain,
    shown,
)
from analysis.loading.frames import Floats
from analysis.loading.replicate_runs import ReplicateRuns, ended
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, nothing
from mmkd.errors import choose
from mmkd.formatting import count
from mmkd.metrics import best_trial, lower_is_better
from mmkd.records import RowRecord, SearchRange, read_record
from mmkd.result_file import Status
from mmkd.rundir import RowDir

Cost = Literal["trials", "hours"]


@dataclass(frozen=True)
class Tuning:
    """The tuning trials of a row that have ended.

    Attributes:
        title: the row's.
        metric: what was optimised, a column of `runs.trials`.
        lower_is_better: whether it was minimised.
        sampler: as the study file names it.
        space: hyperparameter -> its range.
        trials: by number; columns value (NaN where a trial failed, diverged or was pruned), seconds (of GPUs where a
            cluster counted them, else the trial's own; NaN where nobody did), and one for each hyperparameter.
        winner: the number of the best trial, None while none is complete.
        on_gpus: whether the seconds are a GPU's.
    """

    title: str
    metric: str
    lower_is_better: bool
    sampler: str
    space: Mapping[str, SearchRange]
    trials: pd.DataFrame
    winner: int | None
    on_gpus: bool

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that have a value."""
        return self.trials[self.trials["value"].notna()]


def tuning_data(runs: Runs, row: RowRuns) -> Tuning:
    """The tuning of a row. Trials of several replicates have consecutive numbers; values lose their replicate's mean
    and get that of all, because replicates have other validation samples.

    Raises:
        UserError: no trial has ended, or the row's file is broken.
    """
    first, *more = tunings = replicate_tunings(runs, row)
    if not more:
        return first
    means = [float(tuning.trials["value"].mean()) for tuning in tunings]
    pooled = [tuning.trials.assign(value=tuning.trials["value"] - m) for tuning, m in zip(tunings, means, strict=True)]
    trials = pd.concat(pooled, ignore_index=True)
    trials["value"] += float(np.nanmean(means))
    known = dict(enumerate(trials["value"]))
    winner = best_trial(row.fact("selection"), {number: value for number, value in known.items() if value == value})
    title = f"{row.title} ({count(len(tunings), 'replicate')})"
    on_gpus = any(tuning.on_gpus for tuning in tunings)
    return replace(first, title=title, trials=trials, winner=winner, on_gpus=on_gpus)


def replicate_tunings(runs: Runs, row: RowRuns) -> list[Tuning]:
    """The tuning of each replicate of a row in which a trial has ended.

    Raises:
        UserError: there is none, or a file is broken.
    """
    begun = [replicate for replicate in row.replicates if ended(replicate.tuning).any()]
    if not begun:
        raise nothing(row, "tuning trial that has ended")
    return [_tuning(runs, replicate) for replicate in begun]


def _tuning(runs: Runs, row: ReplicateRuns) -> Tuning:
    done = row.tuning[ended(row.tuning)]
    identity = read_record(RowDir(runs.root / "rows" / row.spec.directory).row, RowRecord).identity
    metric = f"valid_{identity.selection}"
    lines = done.set_index("number").sort_index()
    values = lines[metric].where(lines["status"] == Status.COMPLETE) if metric in lines else np.nan
    names = list(identity.space)
    counted = bool((lines["gpu_seconds"] > 0).any())
    seconds = lines["gpu_seconds" if counted else "seconds"]
    trials = lines[names].assign(value=values, seconds=seconds).astype(np.float64)
    lower = lower_is_better(identity.selection)
    known = trials["value"].dropna()
    winner = best_trial(identity.selection, dict(zip(map(int, known.index), known, strict=True)))
    on_gpus = counted or bool((lines["device"].dropna() != "cpu").any())
    return Tuning(row.title, metric, lower, identity.sampler, identity.space, trials, winner, on_gpus)


@dataclass(frozen=True)
class BestSoFar:
    """The best value after each ended trial, in the order of their numbers.

    `cost` (n,) is trials or hours spent until then, failed ones too; `value` (n,) is the trial's own, NaN where it has
    none, `best` (n,) the best until then, NaN before the first. `unknown` counts trials whose hours nobody recorded:
    they are counted as none.
    """

    cost: Floats
    value: Floats
    best: Floats
    unknown: int


def best_so_far_data(tuning: Tuning, cost: Cost) -> BestSoFar:
    """See `BestSoFar`. Hours are summed over trials, whether or not they ran at once, and without the teacher's."""
    value = tuning.trials["value"].to_numpy()
    accumulate = np.fmin.accumulate if tuning.lower_is_better else np.fmax.accumulate
    best: Floats = accumulate(value)
    if cost == "trials":
        return BestSoFar(np.arange(1.0, len(value) + 1), value, best, 0)
    seconds = tuning.trials["seconds"]
    return BestSoFar(seconds.fillna(0).cumsum().to_numpy() / 3600, value, best, int(seconds.isna().sum()))


def best_so_far(
    runs: Runs, study: str, row: str, cost: Cost = "trials", ax: Axes | None = None, legend: bool = True
) -> Axes:
    """The best value of the selection metric so far, against trials or hours, before the control's.

    One line per replicate. A cross at the edge is a trial without a value.

    Raises:
        UserError: there is nothing to draw.
    """
    found = collect(runs, study)
    chosen = found.row(row)
    drawn = [(replicate_tunings(runs, chosen), ROW, "-")]
    control = found.control_of(chosen)
    if control is not None:
        drawn.insert(0, (replicate_tunings(runs, control), CONTROL, "--"))
    with drawing_on(ax) as ax:
        for tunings, colour, line in drawn:
            for tuning in tunings:
                _draw_best_so_far(tuning, cost, ax, colour, line, named=tuning is tunings[0])
        if legend:
            legend_above(ax)
    return ax


def _draw_best_so_far(tuning: Tuning, cost: Cost, ax: Axes, colour: str, line: str, *, named: bool) -> None:
    data = best_so_far_data(tuning, cost)
    label, factor = shown(tuning.metric)
    unknown = f" ({data.unknown} trials of unknown cost)" if data.unknown else ""
    name = entry(tuning.title + unknown) if named else None
    ax.step(data.cost, factor * data.best, line, where="post", color=colour, label=name)
    _mark_failures(data.cost[np.isnan(data.value)], tuning, ax, colour)
    hours = "GPU-hours" if tuning.on_gpus else "hours of trials (CPU)"
    ax.set_xlabel("trials" if cost == "trials" else hours)
    ax.set_ylabel(f"best {label}")
    if cost == "trials":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_failures(at: npt.ArrayLike, tuning: Tuning, ax: Axes, colour: str) -> None:
    """Crosses at the bad edge of `ax`, for trials that have no value."""
    edge = 0.98 if tuning.lower_is_better else 0.02
    ax.plot(at, np.full(np.shape(at), edge), "x", color=colour, markersize=3, transform=ax.get_xaxis_transform())


def slices(runs: Runs, study: str, row: str, parameter: str, ax: Axes | None = None) -> Axes:
    """The selection metric against one hyperparameter: colours are numbers of trials, a star is the winner.

    A cross at the edge is a trial without a value.

    Raises:
        UserError: there is nothing to draw, or the row does not tune that hyperparameter.
    """
    tuning = tuning_data(runs, collect(runs, study).row(row))
    with drawing_on(ax) as ax:
        colour_bar(draw_slice(tuning, parameter, ax), [ax], "trial")
    return ax


def draw_slice(tuning: Tuning, parameter: str, ax: Axes) -> ScalarMappable:
    """Draw `slices` without its colour bar; return the colours of the trials' numbers.

    Raises:
        UserError: the row does not tune that hyperparameter.
    """
    space = tuning.space[choose("hyperparameter", parameter, tuning.space)]
    label, factor = shown(tuning.metric)
    complete = tuning.complete
    numbers = np.asarray(complete.index, np.float64)
    colours = dark_colours(float(min(numbers, default=0)), float(max(numbers, default=1)))
    ax.scatter(complete[parameter], factor * complete["value"], s=9, c=colours.to_rgba(numbers), linewidths=0)
    if tuning.winner is not None:
        best = complete.loc[tuning.winner]
        ax.plot(best[parameter], factor * best["value"], "*", color=WINNER, markersize=8, markeredgewidth=0)
    _mark_failures(tuning.trials[parameter][tuning.trials["value"].isna()], tuning, ax, CONTROL)
    ax.set_xscale("log" if space.log else "linear")
    ax.set_xlim(*_padded(space))
    if space.log and 5 <= space.high / space.low < 100:  # matplotlib's labels of two decades overlap
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(plain(parameter.replace("_", " ")))
    ax.set_ylabel(label)
    return colours


def _padded(space: SearchRange) -> tuple[float, float]:
    """The range and a little more, so that dots at its ends are seen."""
    if space.log:
        margin = (space.high / space.low) ** 0.04
        return space.low / margin, space.high * margin
    margin = 0.04 * (space.high - space.low)
    return space.low - margin, space.high + margin
