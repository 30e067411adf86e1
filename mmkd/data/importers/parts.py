"""Parts for data that have none: samples are dealt by group, else by themselves, with about equal shares of classes."""

from __future__ import annotations

from collections.abc import Sequence

from mmkd.data.splits import deal
from mmkd.errors import UserError

FOLDS = 5
"""Each drawn part has a fifth of the samples."""


def draw_parts(
    ids: Sequence[str], labels: Sequence[int], groups: Sequence[str], parts: Sequence[str], seed: int
) -> dict[str, str]:
    """Deal a fifth of the samples to each of `parts` but the last, which gets the rest: id -> part.

    The draw depends on names and labels alone, see `mmkd.data.splits`; no group is in two parts.

    Args:
        ids: of the samples.
        labels: class index of each.
        groups: of each; empty: every sample is one.
        parts: names, the largest last.
        seed: of the draw.

    Raises:
        UserError: too few groups.
    """
    members: dict[str, dict[str, int]] = {}
    for sample, label, group in zip(ids, labels, groups or ids, strict=True):
        members.setdefault(group, {})[sample] = label
    what = "groups" if groups else "samples"
    if len(members) < len(parts):
        raise UserError(
            f"{len(members)} {what} are too few for {', '.join(parts)}; say which is which in a column split"
        )
    folds = deal(members, min(FOLDS, len(members)), [seed, "parts"], max(labels) + 1)
    drawn: dict[str, str] = {}
    for number, names in enumerate(folds):
        part = parts[min(number, len(parts) - 1)]
        drawn |= {sample: part for name in names for sample in members[name]}
    return drawn
