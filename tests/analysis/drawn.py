"""What a test asks of a drawn figure."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def faults(figure: Figure) -> list[str]:
    """Texts that reach out of the figure or over each other, by more than half a pixel; draws the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    unseen = _ticks_beyond_the_limits(figure)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and id(text) not in unseen]
    boxes = [(t.get_text(), _box(t, renderer)) for t in texts if t.get_visible() and t.get_text().strip()]
    found = []
    for number, (text, box) in enumerate(boxes):
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > figure.bbox.width + 0.5 or box.y1 > figure.bbox.height + 0.5:
            found.append(f"{text!r} is clipped")
        for other, beside in boxes[number + 1 :]:
            across = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            down = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            if across > 0.5 and down > 0.5:
                found.append(f"{text!r} over {other!r}")
    return found


def _box(text: Text, renderer: RendererAgg) -> Bbox:
    """Where a text is seen: empty lines below it are not."""
    box, words = text.get_window_extent(renderer), text.get_text()
    empty = len(words) - len(words.rstrip("\n"))
    share = 1.2 * empty / (1 + 1.2 * words.count("\n"))  # lines after the first are 1.2 times as high
    return Bbox.from_extents(box.x0, box.y0 + box.height * share, box.x1, box.y1)


def _ticks_beyond_the_limits(figure: Figure) -> set[int]:
    """Labels that matplotlib keeps and does not draw."""
    unseen = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            drawn = {id(tick) for tick in axis._update_ticks()}  # type: ignore[attr-defined]
            unseen |= {id(label) for tick in ticks if id(tick) not in drawn for label in (tick.label1, tick.label2)}
    return unseen
