"""All figures of a study by name, laid out for a paper: one file per study, or one per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.confusion import confusion
from analysis.figures.forest import forest
from analysis.figures.learning import learning_curve, learning_curve_data
from analysis.figures.parallel import parallel_coordinates
from analysis.figures.style import (
    CONTROL,
    DOUBLE,
    LINE,
    ROW,
    SINGLE,
    SMALL,
    colour_bar,
    figure_of,
    fit_titles,
    house_style,
    label_outer,
    new_grid,
    panels,
    wrapped,
)
from analysis.figures.table_with_forest import table_with_forest
from analysis.figures.tuning import Cost, best_so_far, draw_slice, replicate_tunings, tuning_data
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, StudyRuns, collect
from mmkd.errors import UserError


@dataclass(frozen=True)
class Drawn:
    """A figure, and the reasons for what is left out."""

    figure: Figure
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A figure to draw: its file's name without ending, and the function that draws it or raises a UserError."""

    name: str
    draw: Callable[[], Drawn]


def plan(runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    """The figures of one kind, a key of `analysis.figure_list.FIGURES`.

    Raises:
        UserError: there is no such study, or its file is broken.
    """
    return _PLANNERS[kind](runs, study, kind)


def _learning(metric: str, runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    def check(row: RowRuns) -> object:
        return learning_curve_data(runs, row, metric)

    def draw(row: RowRuns, ax: Axes, legend: bool) -> str:
        learning_curve(runs, study, row.spec.name, metric, ax, legend)
        return learning_curve_data(runs, row, metric).count

    yield Planned(kind, lambda: _small_multiples(collect(runs, study), check, draw))


def _best(cost: Cost, runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    def draw(row: RowRuns, ax: Axes, legend: bool) -> str:
        best_so_far(runs, study, row.spec.name, cost, ax, legend)
        return ""

    yield Planned(kind, lambda: _small_multiples(collect(runs, study), partial(replicate_tunings, runs), draw))


def _small_multiples(
    study: StudyRuns, check: Callable[[RowRuns], object], draw: Callable[[RowRuns, Axes, bool], str]
) -> Drawn:
    """One panel per row, in front of the control; rows that `check` refuses are left out. `draw` returns a note.

    Raises:
        UserError: the control, or every other row, is refused.
    """
    control = study.control if len(study.rows) > 1 else None
    if control is not None:
        check(control)
    drawable, left_out = [], []
    for row in [row for row in study.rows if row is not control]:
        try:
            check(row)
            drawable.append(row)
        except UserError as error:
            left_out.append(str(error))
    if not drawable:
        raise UserError("; ".join(left_out))
    with house_style():
        axes = panels(len(drawable))
        figure = figure_of(axes[0])
        columns = axes[0].get_gridspec().ncols  # type: ignore[union-attr]  # made by `panels`
        for ax, row in zip(axes, drawable, strict=True):
            note = draw(row, ax, len(drawable) == 1)
            if len(drawable) > 1:
                ax.set_title(_panel_title(row, note, (DOUBLE - 0.6) / columns), fontsize=SMALL)
        label_outer(axes, columns)
        if len(drawable) > 1:
            name = "" if control is None else wrapped(control.title, DOUBLE - 2.2, SMALL)
            fit_titles(axes, columns, LINE * (name.count("\n") + 1))
            if control is not None:
                lines = [Line2D([], [], color=ROW), Line2D([], [], color=CONTROL, linestyle="--")]
                figure.legend(lines, ["the panel's row", name], loc="outside upper center", ncols=2)
    return Drawn(figure, tuple(left_out))


def _panel_title(row: RowRuns, note: str, inches: float) -> str:
    unbroken = note.replace(" ", "\N{NO-BREAK SPACE}")
    parts = [row.spec.group or "", f"{row.spec.label} ({unbroken})" if note else row.spec.label]
    return "\n".join(wrapped(part, inches, SMALL) for part in parts if part)


def _a_row(draw: Callable[[Runs, str, str], Axes], runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    """One figure per row."""
    for row in collect(runs, study).rows:
        name = row.spec.name
        yield Planned(f"{kind}-{name}", lambda name=name: Drawn(figure_of(draw(runs, study, name))))  # type: ignore[misc]


def _slices(runs: Runs, study: str, row: str) -> Axes:
    tuning = tuning_data(runs, collect(runs, study).row(row))
    names = list(tuning.space)
    if not names:
        raise UserError(f"{tuning.title}: it tunes no hyperparameter")
    with house_style():
        width = SINGLE if len(names) == 1 else DOUBLE * min(1, (len(names) + 0.5) / 4)
        title = wrapped(tuning.title, width - 0.2)
        axes = new_grid(1, len(names), width, 2.1 + LINE * title.count("\n"), sharey=True)
        colours = [draw_slice(tuning, name, ax) for ax, name in zip(axes, names, strict=True)]
        label_outer(axes, len(names), 1.3)
        colour_bar(colours[0], axes, "trial")
        figure_of(axes[0]).suptitle(f"{title}\n(star: the best trial)")
    return axes[0]


def _importance(runs: Runs, study: str, row: str) -> Axes:
    from analysis.figures.importance import importance  # Optuna is slow to import, and nothing else needs it

    return importance(runs, study, row)


def _attention(runs: Runs, study: str, row: str) -> Axes:
    chosen = collect(runs, study).row(row)
    if chosen.fact("level") != "attention_maps":
        raise UserError(
            f"{chosen.title}: it does not distil attention maps; use analysis.figures.attention_maps for those of any "
            "row"
        )
    from analysis.figures.attention_maps import attention_maps  # so is torch

    return attention_maps(runs, study, row)[0]


def _forest(runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    yield Planned(kind, lambda: Drawn(figure_of(forest(runs, study))))


def _table(runs: Runs, study: str, kind: str) -> Iterator[Planned]:
    yield Planned(kind, lambda: Drawn(table_with_forest(runs, study)))


_PLANNERS: dict[str, Callable[[Runs, str, str], Iterator[Planned]]] = {
    "learning-loss": partial(_learning, "valid_loss"),
    "learning-accuracy": partial(_learning, "valid_accuracy"),
    "best-trials": partial(_best, "trials"),
    "best-hours": partial(_best, "hours"),
    "importance": partial(_a_row, _importance),
    "slices": partial(_a_row, _slices),
    "parallel": partial(_a_row, parallel_coordinates),
    "forest": _forest,
    "table": _table,
    "confusion": partial(_a_row, confusion),
    "attention": partial(_a_row, _attention),
}
