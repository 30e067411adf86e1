"""A study's figures as SVG that stands in a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.figures.all_figures import plan
from analysis.figures.style import METADATA, house_style
from analysis.loading.runs import Runs
from mmkd.errors import UserError


@dataclass(frozen=True)
class Drawing:
    """A figure, and what of the study is not in it, with the reasons; or why there is none (`svg` is then empty)."""

    name: str
    svg: Markup
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """All figures of one kind."""

    name: str
    title: str
    caption: str
    drawings: tuple[Drawing, ...]

    @property
    def drawn(self) -> tuple[Drawing, ...]:
        """Those that there are."""
        return tuple(drawing for drawing in self.drawings if drawing.svg)


_CURVES = (
    "Confirming runs over epochs: seeds thin, mean, and a band of one sample standard deviation; a dot where a run's "
    "weights are from; the control grey and dashed."
)
CAPTIONS = {
    "learning-loss": ("Learning curves: validation loss", _CURVES),
    "learning-accuracy": ("Learning curves: validation accuracy", _CURVES),
    "best-trials": (
        "Best so far against trials",
        "The best validation value after so many trials; crosses are trials without a value.",
    ),
    "best-hours": (
        "Best so far against time",
        "The best validation value after so many hours of trials, without the teachers'; crosses are trials without a "
        "value.",
    ),
    "importance": (
        "Hyper-parameter importance",
        "PED-ANOVA on the best quarter of the trials; a bar that does not leave the grey says nothing.",
    ),
    "slices": ("Slices", "The validation value against each hyper-parameter, early trials dark."),
    "parallel": ("Parallel coordinates", "A line a trial over all hyper-parameters; dotted where it has no value."),
    "forest": (
        "Differences to the control",
        "Test accuracy less the control's with 95 % intervals (Welch); filled where Holm's p is below 5 %.",
    ),
    "confusion": ("Confusion matrices", "Test, summed over seeds, in shares of the true class."),
    "attention": (
        "Attention maps",
        "One test sample, mean over heads; above a map the Jensen-Shannon divergence to the teacher's over the whole "
        "test split, in bits.",
    ),
}
"""Title and caption of each kind; docs/figures.md says more."""


def drawings(runs: Runs, study: str, kind: str, prefix: str) -> Kind:
    """The figures of one kind; `prefix` sets their ids apart from those of all others in the page."""
    drawn = tuple(_drawings(runs, study, kind, prefix))
    return Kind(kind, *CAPTIONS[kind], drawn)


def _drawings(runs: Runs, study: str, kind: str, prefix: str) -> Iterator[Drawing]:
    for number, planned in enumerate(plan(runs, study, kind)):
        try:
            found = planned.draw()
        except UserError as error:
            yield Drawing(planned.name, Markup(), (str(error).replace(f"{runs.root}/", ""),))
            continue
        yield Drawing(planned.name, inline_svg(found.figure, f"{prefix}-{kind}-{number}-"), found.left_out)


def inline_svg(figure: Figure, prefix: str) -> Markup:
    """The figure as an `<svg>` element: text as outlines, every id with the prefix.

    What would reach beyond it in a page is taken out: the XML header, comments, and a style for all elements (which the
    page has for those in figures).
    """
    text = StringIO()
    with house_style():
        figure.savefig(text, format="svg", metadata=METADATA["svg"])
    svg = text.getvalue()[text.getvalue().index("<svg ") :]
    for pattern in (r"<!--.*?-->\s*", r"<metadata>.*?</metadata>\s*", r"<style[^>]*>.*?</style>\s*"):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return Markup(re.sub(r"\n\s*", "\n", svg))
