"""Figures are drawn where they are asked to be, say what they show, and leave the user's style alone."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_root import HOSTILE, build
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import load, table
from analysis.figure_list import FORMATS
from analysis.figures import best_so_far, confusion, forest, learning_curve, parallel_coordinates, save, slices
from analysis.figures.importance import importance
from analysis.figures.style import DOUBLE, plain
from analysis.figures.table_with_forest import table_with_forest
from analysis.loading.runs import Runs
from mmkd.errors import UserError

Draw = Callable[[Runs, Axes | None], Axes]

DRAWN: dict[str, Draw] = {
    "learning_curve": lambda runs, ax: learning_curve(runs, "demo", "crd", ax=ax),
    "best_so_far": lambda runs, ax: best_so_far(runs, "demo", "crd", "hours", ax),
    "slices": lambda runs, ax: slices(runs, "demo", "crd", "learning_rate", ax),
    "parallel_coordinates": lambda runs, ax: parallel_coordinates(runs, "demo", "crd", ax),
    "forest": lambda runs, ax: forest(runs, "demo", ax=ax),
    "confusion": lambda runs, ax: confusion(runs, "demo", "crd", ax),
    "importance": lambda runs, ax: importance(runs, "demo", "crd", ax),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return load(build(tmp_path_factory.mktemp("drawing")).path, cache=False)


@pytest.fixture(autouse=True)
def same_style_after() -> Iterator[None]:
    """No drawing may change matplotlib's settings."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.importance.SHUFFLES", 5)


def texts(ax: Axes) -> list[str]:
    """All that is written on the axes' figure."""
    figure = _figure(ax)
    FigureCanvasAgg(figure).draw()
    shown = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return [text.get_text() for text in shown if text.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_it_draws_on_the_given_axes_in_the_users_style(runs: Runs, name: str) -> None:
    figure, axes = plt.subplots(1, 2)
    assert DRAWN[name](runs, axes[0]) is axes[0]
    assert axes[0].has_data()
    assert not axes[1].has_data()
    assert axes[0].xaxis.label.get_fontsize() == mpl.rcParams["font.size"]  # "medium"
    plt.close(figure)


@pytest.mark.parametrize("name", DRAWN)
def test_without_axes_it_makes_a_figure_that_pyplot_does_not_keep(runs: Runs, name: str) -> None:
    ax = DRAWN[name](runs, None)
    assert not plt.get_fignums()
    assert ax.figure.get_size_inches()[0] <= DOUBLE + 1e-9
    assert ax.xaxis.label.get_fontsize() == 7


@pytest.mark.parametrize("name", DRAWN)
def test_names_are_shown_letter_by_letter(runs: Runs, name: str) -> None:
    for text in _figure(DRAWN[name](runs, None)).findobj(Text):
        if isinstance(text, Text) and "alpha" in text.get_text() and "100%" in text.get_text():
            # As matplotlib itself decides: no formula, and every dollar of the label is there.
            said, is_formula = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
            assert not is_formula
            assert HOSTILE in " ".join(said.split())
            break
    else:
        assert name == "slices"  # it names the hyperparameter, its caption is the catalogue's


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("learning_curve", ["epoch", "validation loss", "mean ± SD over seeds", "(2 of 3 seeds)"]),
        ("best_so_far", ["hours of trials (CPU)", "best validation loss", "Student without KD"]),
        ("slices", ["learning rate", "validation loss"]),
        ("parallel_coordinates", ["learning rate", "beta", "validation loss", "0.001", "0.75"]),
        ("forest", ["test accuracy, points above", "“Student without KD”", "n = 2", "Not begun", "–"]),  # noqa: RUF001
        ("confusion", ["predicted", "true", "share of the true class", "test, 2 seeds", "walk"]),
        ("importance", ["share of importance", "PED-ANOVA", "sampler tpe, 9 trials", "chance (95 % of it)"]),
    ],
)
def test_what_is_shown_is_named(runs: Runs, name: str, words: list[str]) -> None:
    said = " ".join(" ".join(texts(DRAWN[name](runs, None))).split())  # captions are broken to the figure's width
    for word in words:
        assert word in said


def test_the_picture_of_a_table_has_its_numbers_and_a_square_for_each_difference(runs: Runs) -> None:
    figure, expected = table_with_forest(runs, "demo"), table(runs, "demo")
    said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    for row in expected.rows:
        for words in (plain(row.shown), row.cells["accuracy"].text, row.cells["difference"].text):
            assert words in said
    squares = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    differences = [row.cells["difference"].value for row in expected.rows if row.cells["difference"].difference]
    assert [line.get_xdata()[0] for line in squares] == differences  # type: ignore[index]
    assert differences


def test_trials_without_a_value_are_marked(runs: Runs) -> None:
    for ax, crosses in ((best_so_far(runs, "demo", "crd"), 2), (slices(runs, "demo", "crd", "beta"), 1)):
        marked = [line for line in ax.lines if line.get_marker() == "x"]
        assert sum(len(line.get_xdata()) for line in marked) == crosses  # type: ignore[arg-type]
    dotted = [line for line in parallel_coordinates(runs, "demo", "crd").lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1


@pytest.mark.parametrize(("start", "high"), [(5e-4, 5e-3), (3e-4, 1e-2), (2e-4, 1e-3), (3e-3, 1e-2), (1e-4, 1e-2)])
def test_labels_of_a_logarithmic_axis_do_not_overlap(tmp_path: Path, start: float, high: float) -> None:
    root = build(tmp_path)
    record = tmp_path / "rows" / "crd-00000000" / "row.json"
    known = json.loads(record.read_text())
    known["identity"]["space"]["learning_rate"] = {"low": start, "high": high, "log": True}
    record.write_text(json.dumps(known))
    ax = slices(load(root.path, cache=False), "demo", "crd", "learning_rate")
    figure = _figure(ax)
    FigureCanvasAgg(figure).draw()
    low, end = ax.get_xlim()
    ticks = [
        tick for tick in (*ax.xaxis.get_major_ticks(), *ax.xaxis.get_minor_ticks()) if low <= tick.get_loc() <= end
    ]
    boxes = sorted((tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()), key=lambda b: b.x0)
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_no_row_is_drawn_before_itself(runs: Runs) -> None:
    said = texts(learning_curve(runs, "demo", "none"))
    assert len([text for text in said if text.startswith("Student without KD")]) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_equal_runs_give_equal_bytes_whatever_the_users_style(runs: Runs, tmp_path: Path, form: str) -> None:
    paths = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
    save(_figure(parallel_coordinates(runs, "demo", "crd")), paths[0])
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "other", "savefig.dpi": 10}):
        np.random.default_rng().random()
        save(_figure(parallel_coordinates(runs, "demo", "crd")), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(paths[0].read_bytes()) > 5000


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def test_dollars_are_escaped_once() -> None:
    assert plain("a$b$ c") == r"a\$b\$ c"


def test_an_unknown_row_is_refused_with_its_nearest(runs: Runs) -> None:
    with pytest.raises(UserError, match="unknown row of study demo 'crds'; did you mean crd"):
        learning_curve(runs, "demo", "crds")
