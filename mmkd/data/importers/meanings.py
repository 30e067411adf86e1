"""The data sets that share layouts: what their labels mean, and what content contradicts a stated name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mmkd.data.dataset import Array
from mmkd.errors import UserError

SENTIMENT = ("-3", "-2", "-1", "0", "+1", "+2", "+3")
SIMS = ("negative", "weakly negative", "neutral", "weakly positive", "positive")
EMOTIONS = ("neutral", "happy", "sad", "angry")
"""The order of IEMOCAP's labels in MulT's pickles, as MulT's `eval_iemocap` names them."""

SDK = "CMU Multimodal SDK's terms: research use"


@dataclass(frozen=True)
class Known:
    """A data set: its name, terms, and labels.

    Attributes:
        name: begins `source`, by which profiles and the paper's columns are chosen.
        license: its terms.
        classes: names, by class index.
        score_range: of the first and last class, where labels are scores.
        values: the label values of the classes, where labels are classes.
    """

    name: str
    license: str
    classes: tuple[str, ...]
    score_range: tuple[float, float] | None = None
    values: tuple[float, ...] = ()


KNOWN = {
    "mosei": Known("CMU-MOSEI", SDK, SENTIMENT, (-3.0, 3.0)),
    "mosi": Known("CMU-MOSI", SDK, SENTIMENT, (-3.0, 3.0)),
    "sims": Known("CH-SIMS", "research use, see the authors' page", SIMS, (-1.0, 1.0)),
    "iemocap": Known("IEMOCAP", "USC's release form: research use", ()),
    "humor": Known("UR-FUNNY", "research use, see the authors' page", ("not humorous", "humorous"), values=(0, 1)),
    "sarcasm": Known("MUStARD", "research use, see the authors' page", ("not sarcastic", "sarcastic"), values=(-1, 1)),
}

SIZES: dict[tuple[int, ...], str] = {
    (16326, 1871, 4659): "mosei", (16265, 1869, 4643): "mosei",
    (1284, 229, 686): "mosi", (1283, 214, 686): "mosi", (1283, 229, 686): "mosi", (1281, 229, 685): "mosi",
    (1368, 456, 457): "sims", (2722, 647, 1034): "sims",
    (2717, 798, 938): "iemocap",
    (8074, 1034, 1058): "humor", (10598, 2626, 3290): "humor", (7614, 980, 1074): "humor",
    (414, 138, 138): "sarcasm",
}  # fmt: skip
"""Samples of train, valid and test -> the data set that is distributed like this."""

FEATURES = {(20, 5): ("mosi",), (709, 33): ("sims",), (371, 81): ("humor", "sarcasm")}
"""Features of vision and audio -> the data sets that have so many."""

ENOUGH = 8
"""Fewer labels say nothing about their range."""


def check_meaning(where: str, stated: str, labels: Mapping[str, Array], features: Mapping[str, int]) -> None:
    """Refuse a file whose content contradicts the stated data set.

    Args:
        where: the file.
        stated: the key of the data set in `KNOWN`.
        labels: split -> (N,) scores or values; for IEMOCAP (N, 4, 2), of which nothing is checked here.
        features: features of vision and audio.

    Raises:
        UserError: showing what is stated, what the file holds, and the data set that it looks like.
    """

    def refuse(found: str, *likely: str) -> None:
        names = " or ".join(KNOWN[name].name for name in likely)
        asks = f"; if it is {names}, use --dataset {' or '.join(likely)}" if likely else ""
        raise UserError(f"{where}: stated is {KNOWN[stated].name} (--dataset {stated}), but {found}{asks}")

    sizes = tuple(len(labels[name]) for name in ("train", "valid", "test"))
    if SIZES.get(sizes, stated) != stated:
        refuse(f"train, valid and test have {sizes[0]}, {sizes[1]} and {sizes[2]} samples", SIZES[sizes])
    widths = features["vision"], features["audio"]
    if stated not in FEATURES.get(widths, (stated,)):
        refuse(f"vision and audio have {widths[0]} and {widths[1]} features", *FEATURES[widths])
    if stated != "iemocap":
        _check_values(stated, np.concatenate([labels[name].reshape(-1) for name in labels]), refuse)


def _check_values(stated: str, values: Array, refuse: Callable[..., None]) -> None:
    known = KNOWN[stated]
    values = values[~np.isnan(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    distinct = set(np.unique(values).tolist()) if len(values) <= 10**6 else set()
    shown = f"its labels go from {low:g} to {high:g}"
    binary = [name for name in ("humor", "sarcasm") if distinct == set(KNOWN[name].values)]
    if known.values:
        if not distinct <= set(known.values):
            wanted = " and ".join(f"{value:g}" for value in known.values)
            refuse(f"{shown}, not only {wanted}", *(binary or _by_range(low, high)))
        return
    assert known.score_range is not None
    first, last = known.score_range
    if low < first or high > last:
        refuse(f"{shown}, not within {first:g} to {last:g}", *(name for name in _by_range(low, high) if name != stated))
    if len(values) < ENOUGH:
        return
    if binary:
        refuse(f"its labels are only {low:g} and {high:g}", *binary)
    if stated != "sims" and max(-low, high) <= 1:
        refuse(f"{shown}, where {known.name}'s go from -3 to 3", "sims")


def _by_range(low: float, high: float) -> tuple[str, ...]:
    if low >= -1 and high <= 1:
        return ("sims",)
    return ("mosi", "mosei") if -3 <= low < 0 and high <= 3 else ()


def nearest_class(scores: Array, score_range: tuple[float, float], classes: int) -> Array:
    """(N,) int64: the class whose score is nearest to each of `scores`; halves go to the even multiple of the step.

    Scores outside the range belong to the first or the last class.
    """
    first, last = score_range
    step = (last - first) / (classes - 1)
    below = round(first / step)
    offset = first - below * step
    nearest: Array = np.rint((np.clip(scores, first, last) - offset) / step).astype(np.int64) - below
    return np.clip(nearest, 0, classes - 1)
