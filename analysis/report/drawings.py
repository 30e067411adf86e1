"""A study's figures as SVG that stands in a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.figure_list import FIGURES, METADATA
from analysis.figures.all_figures import plan
from analysis.figures.style import house_style
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


def drawings(runs: Runs, study: str, kind: str, prefix: str) -> Kind:
    """The figures of one kind; `prefix` sets their ids apart from those of all others in the page."""
    named = FIGURES[kind]
    return Kind(kind, named.title, named.caption, tuple(_drawings(runs, study, kind, prefix)))


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
