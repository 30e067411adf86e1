"""The style of all figures: a paper's sizes, colour-blind safe colours, labels of metrics, reproducible files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from analysis.figure_list import FORMATS, METADATA
from mmkd.files import write_atomically

SINGLE, DOUBLE = 3.3, 7.0
"""Inches: one column of a two-column paper, and both."""

ROW, CONTROL, TEACHER, WINNER = "#0072B2", "#5F5F5F", "#D55E00", "#D55E00"
"""Blue and vermillion of Okabe and Ito (2008), and a grey for what others are measured against."""

SEQUENTIAL, LIGHT = "viridis", "Blues"
"""Even in lightness, so that it reads without colours too; and one hue from white, where most values are zero."""

LIGHTEST = 1 / 1.15
"""Share of `SEQUENTIAL` that is used for lines and dots: its light end would not be seen on white."""

LABEL, SMALL = 7.0, 6.0
"""Points: axis labels and titles; ticks, legends and notes."""

LINE = 0.12
"""Inches: how much higher a line more in a title makes a figure."""

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
METRICS = {"weighted_f1": "weighted F1", "macro_f1": "macro F1"}
SHARES = ("accuracy", "weighted_f1", "macro_f1", "majority_share")
"""Words of axis labels, and the metrics that are shown in per cent."""

STYLE: dict[str, Any] = {
    "font.size": LABEL,
    "axes.titlesize": LABEL,
    "axes.labelsize": LABEL,
    "legend.fontsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "figure.titlesize": LABEL,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: publishers refuse matplotlib's usual Type 3
    "svg.hashsalt": "mmkd",  # else the ids in the file are random
}


def house_style() -> AbstractContextManager[None]:
    """Within it matplotlib's own defaults and `STYLE` hold, whatever the user has set; after it nothing has changed."""
    return matplotlib.style.context(["default", STYLE])


@contextmanager
def drawing_on(ax: Axes | None, width: float = SINGLE, height: float = 2.4) -> Iterator[Axes]:
    """`ax` as it is, in the user's own style; where there is none, the axes of a new figure in the house style."""
    if ax is not None:
        yield ax
        return
    with house_style():
        yield new_grid(1, 1, width, height)[0]


def new_grid(rows: int, columns: int, width: float, height: float, **subplots: Any) -> list[Axes]:
    """The axes, row by row, of a new figure of that size in inches; call it in the house style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **subplots)
    for ax in grid.flat:
        # Ticks are made when they are drawn, maybe in another style than the rest.
        ax.tick_params(which="both", labelsize=SMALL, width=0.6)
        ax.tick_params(length=2.5)
    return list(grid.flat)


def panels(count: int) -> list[Axes]:
    """Axes for `count` panels of one kind: one fills a column of a paper, several share their scales and fill both.

    See `fit_titles` for the height.
    """
    if count == 1:
        return new_grid(1, 1, SINGLE, 2.3)
    columns = min(count, 3 if count <= 6 else 4)
    rows = math.ceil(count / columns)
    axes = new_grid(rows, columns, DOUBLE, 1.7 * rows, sharex=True, sharey=True)
    for ax in axes[count:]:
        ax.remove()
    for ax in axes[max(count - columns, 0) : count]:
        ax.tick_params(labelbottom=True)  # also above a gap in the last row
    return axes[:count]


def dark_colours(low: float, high: float) -> ScalarMappable:
    """Colours of `SEQUENTIAL` that are seen on white, for values from `low` (dark) to `high`."""
    colours = ListedColormap(colormaps[SEQUENTIAL](np.linspace(0, LIGHTEST, 256)))
    return ScalarMappable(Normalize(low, max(high, low + 1)), colours)


def colour_bar(values: ScalarMappable, axes: Sequence[Axes], label: str) -> None:
    """A colour bar of whole numbers beside the axes."""
    bar = figure_of(axes[0]).colorbar(values, ax=list(axes), label=label, aspect=30, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar.ax.tick_params(labelsize=SMALL, length=2.5, width=0.6)
    bar.outline.set_visible(False)


def figure_of(ax: Axes) -> Figure:
    """The whole figure that `ax` is part of."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def label_outer(axes: Sequence[Axes], columns: int, height: float = 0.95) -> None:
    """Keep the axis labels of a grid's panels, which are so many inches high, at the left and at the bottom alone."""
    for number, ax in enumerate(axes):
        if number % columns:
            ax.set_ylabel("")
        else:
            ax.set_ylabel(wrapped(ax.get_ylabel(), height))
        if number + columns < len(axes):
            ax.set_xlabel("")


def fit_titles(axes: Sequence[Axes], columns: int, above: float) -> None:
    """Make the figure of `panels` as high as their titles need, and `above` (inches) more."""
    lines = [1 + ax.get_title().count("\n") for ax in axes]
    rows = [max(lines[start : start + columns]) for start in range(0, len(lines), columns)]
    figure_of(axes[0]).set_figheight(above + 0.3 + sum(1.25 + LINE * count for count in rows))


def legend_above(ax: Axes, title: str | None = None) -> None:
    """A legend above `ax`, where it hides no data, one line per entry."""
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), title=title, title_fontsize=ax.xaxis.label.get_fontsize())


def entry(text: str) -> str:
    """A line of such a legend, in as many lines as it needs in one column of a paper."""
    return wrapped(text, 2.3, SMALL)


class Shown(NamedTuple):
    """An axis label, and what values are multiplied by to be in its unit."""

    label: str
    factor: float


def shown(metric: str) -> Shown:
    """The label of `<split>_<metric>`: `valid_accuracy` is "validation accuracy (%)", in per cent."""
    split, _, name = metric.partition("_")
    if split not in SPLITS:
        return Shown(metric.replace("_", " "), 1.0)
    label = f"{SPLITS[split]} {METRICS.get(name, name.replace('_', ' '))}"
    return Shown(f"{label} (%)", 100.0) if name in SHARES else Shown(label, 1.0)


def plain(text: str) -> str:
    """`text` for matplotlib, which takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")


def wrapped(text: str, inches: float, points: float = LABEL) -> str:
    """`text` in lines that are no wider than that, as its letters measure; see `plain`.

    A word that is wider than a line is broken; a no-break space is a letter.
    """
    lines: list[str] = []
    for word in re.split(r"[ \t\n]+", text.strip()):
        if lines and inches_of(f"{lines[-1]} {word}", points) <= inches:
            lines[-1] += f" {word}"
        else:
            lines += _broken(word, inches, points)
    return plain("\n".join(lines))


def _broken(word: str, inches: float, points: float) -> list[str]:
    """A word in pieces that fit; the last one may be short."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and inches_of(pieces[-1] + letter, points) > inches:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def inches_of(text: str, points: float = LABEL) -> float:
    """The width of a line of text in that size."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), ismath=False)
    return float(width) / 72


def save(figure: Figure, path: Path) -> None:
    """Write the figure, in the format that the name ends in (pdf, svg or png); equal figures give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    form = next(known for known in FORMATS if path.suffix == f".{known}")
    with house_style():
        write_atomically(path, lambda new: figure.savefig(new, format=form, metadata=METADATA[form]))
