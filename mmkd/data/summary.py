"""Summary of a data file for a terminal, and what is odd about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mmkd.data.dataset import SPLITS, Array, Split, chunks, is_padding
from mmkd.data.hdf5_format import DatasetInfo
from mmkd.data.splits import missing_classes, shared_groups
from mmkd.formatting import count

EXTREME = 30.0  # standard deviations from the mean
HEAVY_PADDING = 0.5  # share of padded steps in train
MANY_GROUPS = 30  # more are summarised
IMBALANCE = 10  # times as many samples of the most frequent class as of the rarest


def find_oddities(info: DatasetInfo, splits: Mapping[str, Split]) -> list[str]:
    """One sentence per oddity that a careful person would want to know before training; reads all arrays once."""
    return [
        *_class_oddities(info),
        *_group_oddities(info),
        *(line for modality in info.modalities for line in _feature_oddities(modality, splits["train"])),
        *_duplicates(splits),
    ]


def _class_oddities(info: DatasetInfo) -> Iterator[str]:
    for split, absent in missing_classes(info).items():
        yield f"{split} has no sample of {', '.join(absent)}"
    counts = info.class_counts["train"]
    common, rare = int(np.argmax(counts)), int(np.argmin(counts))
    if counts[rare] and counts[common] >= IMBALANCE * counts[rare]:
        yield (
            f"classes are imbalanced: train has {counts[common]} samples of {info.classes[common]}, "
            f"{counts[rare]} of {info.classes[rare]}"
        )


def _group_oddities(info: DatasetInfo) -> Iterator[str]:
    shared = shared_groups(info)
    if shared:
        group, parts = next(iter(shared.items()))
        yield f"{count(len(shared), 'group')} in several splits, {group} in {' and '.join(parts)} for one"


def _feature_oddities(modality: str, train: Split) -> Iterator[str]:
    array, lengths = train.arrays[modality], train.lengths[modality]
    mean, std = array.attrs["mean"], array.attrs["std"]
    low, high = np.full(len(mean), np.inf), np.full(len(mean), -np.inf)
    for rows in chunks(array):
        real = array[rows][~is_padding(lengths[rows], array.shape[1])]
        low, high = np.minimum(low, real.min(axis=0)), np.maximum(high, real.max(axis=0))
    if (low == high).any():
        yield f"{modality} has {int((low == high).sum())} of {len(mean)} features constant over train"
    distance = np.maximum(mean - low, high - mean) / std
    if distance.max() > EXTREME:
        features = int((distance > EXTREME).sum())
        yield (
            f"{modality} has extreme values: {features} of its features go beyond {EXTREME:.0f} standard deviations, "
            f"feature {distance.argmax()} to {distance.max():.0f}"
        )
    padded = 1 - lengths.mean() / array.shape[1]
    if padded > HEAVY_PADDING:
        yield f"{modality} is padding for {padded:.0%} of its steps in train"


def _duplicates(splits: Mapping[str, Split]) -> Iterator[str]:
    marks = {name: _marks(split) for name, split in splits.items()}
    for first, second in combinations(SPLITS, 2):
        shared = marks[first].keys() & marks[second].keys()
        if shared:
            one = min(shared, key=marks[first].__getitem__)
            yield (
                f"{first} and {second} share {len(shared)} identical samples, "
                f"{marks[first][one]} and {marks[second][one]} for one"
            )


def _marks(split: Split) -> dict[bytes, str]:
    """Hash of all modalities of a sample -> its id."""
    digests = [hashlib.sha256() for _ in split.ids]
    for modality in sorted(split.arrays):
        array = split.arrays[modality]
        for rows in chunks(array):
            for digest, sample in zip(digests[rows], array[rows], strict=True):
                digest.update(sample.data)
    return {digest.digest(): sample for digest, sample in zip(digests, split.ids, strict=True)}


def render(info: DatasetInfo, splits: Mapping[str, Split], oddities: list[str]) -> RenderableType:
    """Format the summary: facts, modalities, classes, oddities."""
    odd = ["[bold]odd[/bold]", *(f"  {escape(line)}" for line in oddities)] if oddities else ["nothing odd"]
    groups: list[RenderableType] = [_groups(info), ""] if info.group_counts else []
    return Group(_facts(info), "", _modalities(info, splits), "", _classes(info), "", *groups, *odd)


def _facts(info: DatasetInfo) -> Table:
    table = Table.grid(padding=(0, 2))
    labels = f"{len(info.classes)} classes"
    if info.score_range is not None:
        labels += " of a score from {:g} to {:g}".format(*info.score_range)
    sizes = ", ".join(f"{name} {size}" for name, size in info.sizes.items())
    facts = {
        "file": str(info.path),
        "source": info.source,
        "license": info.license,
        "notes": info.notes,
        "samples": sizes,
        "labels": labels,
        "groups": ", ".join(f"{name} {len(groups)}" for name, groups in info.group_counts.items()) or "none",
        "layout": f"version {info.layout_version}",
        "fingerprint": f"{info.fingerprint} (matches the content)",
    }
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _modalities(info: DatasetInfo, splits: Mapping[str, Split]) -> Table:
    table = _table("modality", "steps", "features", "dtype", "real steps: min", "median", "max", "vectors of")
    for modality in info.modalities:
        lengths: Array = np.concatenate([split.lengths[modality] for split in splits.values()])
        table.add_row(
            modality,
            str(info.steps[modality]),
            str(info.features[modality]),
            str(splits["train"].arrays[modality].dtype),
            *(f"{summary:g}" for summary in (lengths.min(), np.median(lengths), lengths.max())),
            str(info.vectors.get(modality, "-")),
        )
    return table


def _classes(info: DatasetInfo) -> Table:
    table = _table("class", *info.class_counts)
    for index, name in enumerate(info.classes):
        table.add_row(escape(name), *(str(counts[index]) for counts in info.class_counts.values()))
    shares = (max(counts) / sum(counts) for counts in info.class_counts.values())
    table.add_row("majority share", *(f"{share:.3f}" for share in shares), style="bold")
    return table


def _groups(info: DatasetInfo) -> Table:
    """Samples of each group; of many groups, the smallest, middle and largest number."""
    table = _table("group", *info.group_counts)
    names = sorted(set().union(*info.group_counts.values()))
    if len(names) <= MANY_GROUPS:
        for name in names:
            table.add_row(escape(name), *(str(counts.get(name, "-")) for counts in info.group_counts.values()))
        return table
    sizes = [list(counts.values()) for counts in info.group_counts.values()]
    for label, share in {"smallest": 0.0, "median": 0.5, "largest": 1.0}.items():
        table.add_row(label, *(f"{np.quantile(each, share):g}" for each in sizes))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in others:
        table.add_column(name, justify="right")
    return table
