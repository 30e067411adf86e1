"""Draw splits by group: the parts of each replicate follow from samples, settings and replicate number.

A sample's group is its subject, speaker or video. A drawn split has no group in two parts. Draws depend on names and
counts alone, not on the order of samples, and are made by hashing names: SHA-256 gives the same order on every machine
and with every version of Python and numpy, which numpy promises of no method of its generators.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import comb
from typing import Any

import numpy as np

from mmkd.config import DrawnSplit, SplitSettings, digest
from mmkd.data.dataset import SPLITS, Array, Split
from mmkd.data.hdf5_format import DatasetInfo, count_classes, open_dataset
from mmkd.errors import UserError, errors_about
from mmkd.formatting import count
from mmkd.records import SplitRecord

LEAVE_ONE_OUT, FOLDS = 12, 5
"""With up to so many groups, `group-folds` tests each alone by default; with more, it has so many folds."""
VALID_SHARE = 1 / 6
"""Default share of validation groups in those outside test."""

Groups = Mapping[str, Mapping[str, int]]
"""Group -> sample id -> class index."""


def draw_splits(
    info: DatasetInfo, settings: SplitSettings, replicates: int
) -> list[tuple[DrawnSplit | None, DatasetInfo]]:
    """Draw the split of each replicate, as `choose_split`, and describe the data with its parts, as `divide`."""
    if settings.scheme == "file":
        return [(None, divide(info, None))] * replicates
    with open_dataset(info.path) as (_, stored):
        drawn = [_draw(info, stored, settings, replicate) for replicate in range(replicates)]
        labels = _labels(stored)
    chosen = [_choice(settings, replicate, split) for replicate, split in enumerate(drawn)]
    return [(choice, _describe(info, split, labels)) for choice, split in zip(chosen, drawn, strict=True)]


def choose_split(info: DatasetInfo, settings: SplitSettings, replicate: int) -> DrawnSplit | None:
    """Draw the split of a replicate of a data file, as a configuration names it; None for scheme `file`.

    `group-folds` with K folds: replicate r tests fold r mod K of partition r div K. `resample-valid`: each replicate
    draws its own validation groups.

    Raises:
        UserError: the file has no groups, or too few for the settings.
    """
    if settings.scheme == "file":
        return None
    with open_dataset(info.path) as (_, stored):
        return _choice(settings, replicate, _draw(info, stored, settings, replicate))


def _choice(settings: SplitSettings, replicate: int, drawn: SplitRecord) -> DrawnSplit:
    return DrawnSplit(**settings.model_dump(), replicate=replicate, digest=drawn.digest)


def divide(info: DatasetInfo, choice: DrawnSplit | None) -> DatasetInfo:
    """Describe a data file with the parts of a drawn split, which reading it by this description gives.

    Args:
        info: of the file.
        choice: the split; None: the file's own parts.

    Raises:
        UserError: as `choose_split`; or the file's samples or groups are not those that `choice` was drawn from.
    """
    if choice is None:
        return replace(info, split=None)
    with open_dataset(info.path) as (_, stored):
        drawn = _draw(info, stored, choice, choice.replicate)
        labels = _labels(stored)
    if drawn.digest != choice.digest:
        raise UserError(
            f"{info.path}: split {choice.scheme!r} of replicate {choice.replicate} has the digest {drawn.digest[:12]}, "
            f"but the trial was made for {choice.digest[:12]}: the groups of the samples have changed"
        )
    return _describe(info, drawn, labels)


def _describe(info: DatasetInfo, drawn: SplitRecord, labels: Mapping[str, int]) -> DatasetInfo:
    """The description of a data file with the parts of a drawn split; `labels` are by sample."""
    members = {part: [sample for group in groups.values() for sample in group] for part, groups in drawn.parts.items()}
    return replace(
        info,
        split=drawn,
        sizes={part: len(samples) for part, samples in members.items()},
        class_counts={
            part: count_classes(np.array([labels[sample] for sample in samples]), len(info.classes))
            for part, samples in members.items()
        },
        group_counts={part: {g: len(s) for g, s in groups.items()} for part, groups in drawn.parts.items()},
    )


def missing_classes(info: DatasetInfo) -> dict[str, list[str]]:
    """Part -> names of the classes of which it has no sample; parts that have all classes are left out."""
    missing = {
        part: [name for name, n in zip(info.classes, counts, strict=True) if n == 0]
        for part, counts in info.class_counts.items()
    }
    return {part: names for part, names in missing.items() if names}


def shared_groups(info: DatasetInfo) -> dict[str, list[str]]:
    """Group -> the parts that it is in, where these are several: only in the file's own parts."""
    owners: dict[str, list[str]] = {}
    for part, groups in info.group_counts.items():
        for group in groups:
            owners.setdefault(group, []).append(part)
    return {group: parts for group, parts in sorted(owners.items()) if len(parts) > 1}


def _draw(info: DatasetInfo, stored: Mapping[str, Split], settings: SplitSettings, replicate: int) -> SplitRecord:
    """The split of a replicate, of a scheme that draws; `stored` are the file's own parts."""
    with errors_about(f"{info.path}: scheme = {settings.scheme!r}"):
        if not stored["train"].groups:
            raise UserError(
                "the file has no groups (subject, speaker or video of each sample); import it again with this mmkd, or "
                "write it with Split(groups=...), see docs/adding-data.md"
            )
        if settings.scheme == "group-folds":
            groups = _by_group(stored.values())
            test, number = _test_fold(groups, settings, replicate, len(info.classes))
        else:
            groups, number = _by_group([stored["train"], stored["valid"]]), replicate
            tested = _by_group([stored["test"]])
            test = sorted(tested)
            if both := sorted(tested.keys() & groups.keys()):
                raise UserError(
                    f"{count(len(both), 'group')} of the file's test part ({both[0]!r} for one) is also in train or "
                    f"valid, and no group may be in two parts; use 'group-folds', or 'file' for the file's own parts"
                )
            groups = {**groups, **tested}
        rest = sorted(groups.keys() - set(test))
        size = _validation_size(settings, len(rest), len(test))
        valid = _choose_validation(rest, size, digest([settings.seed, test]), number)
    train = [name for name in rest if name not in valid]
    parts = {
        part: {name: tuple(sorted(groups[name])) for name in names}
        for part, names in zip(SPLITS, (train, valid, test), strict=True)
    }
    return SplitRecord(scheme=settings.scheme, parts=parts)


def _labels(stored: Mapping[str, Split]) -> dict[str, int]:
    """Class index by sample."""
    return {sample: label for part in stored.values() for sample, label in _labelled(part)}


def _labelled(part: Split) -> Iterable[tuple[str, int]]:
    return zip(part.ids, part.labels.tolist(), strict=True)


def _by_group(parts: Iterable[Split]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for part in parts:
        for (sample, label), group in zip(_labelled(part), part.groups, strict=True):
            found.setdefault(group, {})[sample] = label
    return found


def _test_fold(groups: Groups, settings: SplitSettings, replicate: int, classes: int) -> tuple[list[str], int]:
    """Groups of a replicate's test part, and the number of its partition.

    Raises:
        UserError: there are more folds than groups, or another fold of the partition leaves no group for train.
    """
    folds = settings.folds or (len(groups) if len(groups) <= LEAVE_ONE_OUT else FOLDS)
    if folds > len(groups):
        raise UserError(f"folds = {folds}, but the file has {count(len(groups), 'group')}")
    partition, fold = divmod(replicate, folds)
    dealt = deal(groups, folds, [settings.seed, partition], classes)
    for names in dealt:
        _validation_size(settings, len(groups) - len(names), len(names))
    return dealt[fold], partition


def deal(groups: Groups, folds: int, key: Sequence[Any], classes: int) -> list[list[str]]:
    """Deal groups to folds with about equal shares of all samples and of each class.

    Larger groups are dealt first, in the order of a shuffle among groups of about one size. Each goes to the fold where
    it least increases the sum of squares of these shares, in integers; a class weighs the more, the rarer it is.
    """
    counts: dict[str, Array] = {
        name: np.append(np.bincount(list(members.values()), minlength=classes), len(members))
        for name, members in groups.items()
    }
    total: Array = sum(counts.values(), np.zeros(classes + 1, np.int64))
    weights = total[-1] // np.maximum(total, 1)
    weights[-1] = classes
    dealt: list[list[str]] = [[] for _ in range(folds)]
    totals = np.zeros((folds, classes + 1), np.int64)
    for name in sorted(_shuffle(groups, key), key=lambda name: -len(groups[name]).bit_length()):
        fold = int(np.argmin(totals @ (weights * counts[name])))
        totals[fold] += counts[name]
        dealt[fold].append(name)
    # Reordered, so that the first folds are not those of the largest groups.
    return sorted(map(sorted, dealt), key=lambda names: digest([*key, names]))


def _validation_size(settings: SplitSettings, rest: int, test: int) -> int:
    """Number of validation groups, of `rest` groups outside test.

    Raises:
        UserError: none would be left for train.
    """
    size = settings.valid_groups or max(1, round(VALID_SHARE * rest))
    if size >= rest:
        raise UserError(
            f"no group is left for train: of {count(rest + test, 'group')}, {test} would be for test and {size} for "
            f"validation"
        )
    return size


def _choose_validation(rest: Collection[str], size: int, key: str, number: int) -> list[str]:
    """Choose `size` of the groups in `rest`: other ones for each number, as long as there are any.

    The first sets have no group in common: they are pieces of one shuffle. Later ones come from further shuffles.
    """
    number %= comb(len(rest), size)
    seen: set[tuple[str, ...]] = set()
    for lap in itertools.count():
        order = _shuffle(rest, [key, lap])
        for start in range(0, len(rest) - size + 1, size):
            chosen = tuple(sorted(order[start : start + size]))
            if chosen not in seen and len(seen) == number:
                return list(chosen)
            seen.add(chosen)
    raise AssertionError("unreachable")


def _shuffle(names: Iterable[str], key: Sequence[Any]) -> list[str]:
    """Names in an order that follows from them and the key."""
    return sorted(names, key=lambda name: digest([*key, name]))
