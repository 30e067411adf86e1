"""A study's figures as SVG that stands in a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.figure_list import METADATA
from analysis.figures.all_figures import plan
from analysis.figures.style import house_style
from analysis.loading.runs import Runs
from mmkd.errors import UserError


@dataclass(frozen=True)
class Drawing:
    """A figure, and the reasons for what is left out; or for there being none (`svg` is then empty)."""

    name: str
    svg: Markup
    left_out: tuple[str, ...]


def drawings(runs: Runs, study: str, kind: str, prefix: str) -> Iterator[Drawing]:
    """The figures of one kind; `prefix` sets their ids apart from those of all others in the page."""
    for number, planned in enumerate(plan(runs, study, kind)):
        try:
            found = planned.draw()
        except UserError as error:
            yield Drawing(planned.name, Markup(), (str(error).replace(f"{runs.root}/", ""),))
            continue
        yield Drawing(planned.name, inline_svg(found.figure, f"{prefix}-{kind}-{number}-"), found.left_out)


def inline_svg(figure: Figure, prefix: str) -> Markup:
    """The figure as an `<svg>` element: text as outlines, every id with the prefix.

    Left out is all that affects the page around it: the XML header, comments, and a style for all elements.
    """
    text = StringIO()
    with house_style():
        figure.savefig(text, format="svg", metadata=METADATA["svg"])
    svg = text.getvalue()[text.getvalue().index("<svg ") :]
    for pattern in (r"<!--.*?-->\s*", r"<metadata>.*?</metadata>\s*", r"<style[^>]*>.*?</style>\s*"):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return Markup(re.sub(r"\n\s*", "\n", svg))
