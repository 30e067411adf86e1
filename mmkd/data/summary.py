"""Summary of a data file for a terminal, and what is odd about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mmkd.data.dataset import SPLITS, Array, Split, chunks, edge_zeros, is_padding
from mmkd.data.hdf5_format import DatasetInfo
from mmkd.data.padding import FEW, FEW_SHARE
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
        *_zero_oddities(info, splits),
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


def _zero_oddities(info: DatasetInfo, splits: Mapping[str, Split]) -> Iterator[str]:
    for modality in info.modalities:
        samples = ending = 0
        for split in splits.values():
            leading, trailing = edge_zeros(split.arrays[modality])
            ending += int(((trailing > 0) & (leading < info.steps[modality])).sum())
            samples += len(split)
        if ending > max(FEW, FEW_SHARE * samples):
            yield f"{modality} ends in all-zero steps in {ending} of {samples} samples: they are data here, not padding"


def _duplicates(splits: Mapping[str, Split]) -> Iterator[str]:
    """Equal samples of two splits: by all modalities; and by a single one, which is all that a student sees."""
    marks = {name: _marks(split) for name, split in splits.items()}
    for first, second in combinations(SPLITS, 2):
        shared = _shared(_joint(marks[first]), _joint(marks[second]))
        if shared:
            yield f"{first} and {second} share {len(shared)} identical samples, {shared[0]} for one"
        for modality in marks[first] if len(marks[first]) > 1 else ():
            alone = _shared(marks[first][modality], marks[second][modality])
            if len(alone) > len(shared):
                yield f"{first} and {second} share {len(alone)} samples of identical {modality}, {alone[0]} for one"


def _shared(first: Mapping[str, bytes], second: Mapping[str, bytes]) -> list[str]:
    """`id and id` of each content that is in both, in the order of the first ids."""
    owners = {mark: sample for sample, mark in reversed(list(first.items()))}
    pairs = {owners[mark]: sample for sample, mark in reversed(list(second.items())) if mark in owners}
    return [f"{sample} and {pairs[sample]}" for sample in sorted(pairs)]


def _joint(marks: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Marks of all modalities together."""
    everything = [marks[modality] for modality in sorted(marks)]
    samples = dict.fromkeys(sample for each in everything for sample in each)
    return {sample: b"".join(each.get(sample, b"") for each in everything) for sample in samples}


def _marks(split: Split) -> dict[str, dict[str, bytes]]:
    """modality -> id -> hash of the sample; samples that lack the modality (all zero) are left out."""
    marks: dict[str, dict[str, bytes]] = {modality: {} for modality in split.arrays}
    for modality, array in split.arrays.items():
        for rows in chunks(array):
            for name, sample in zip(split.ids[rows], array[rows], strict=True):
                if sample.any():
                    marks[modality][name] = hashlib.sha256(sample.data).digest()
    return marks


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
    real = ("real steps: min", "median", "max", "of them zero", "padded")
    table = _table("modality", "steps", "features", "dtype", *real, "vectors of")
    for modality in info.modalities:
        lengths: Array = np.concatenate([split.lengths[modality] for split in splits.values()])
        table.add_row(
            modality,
            str(info.steps[modality]),
            str(info.features[modality]),
            str(splits["train"].arrays[modality].dtype),
            *(f"{summary:g}" for summary in (lengths.min(), np.median(lengths), lengths.max())),
            f"{sum(_zero_steps(split, modality) for split in splits.values()):,}",
            f"{len(lengths) * info.steps[modality] - lengths.sum():,}",
            str(info.vectors.get(modality, "-")),
        )
    return table


def _zero_steps(split: Split, modality: str) -> int:
    """Real steps in which all features are 0."""
    array, lengths = split.arrays[modality], split.lengths[modality]
    blank = (~(array[rows] != 0).any(axis=2) & ~is_padding(lengths[rows], array.shape[1]) for rows in chunks(array))
    return sum(int(each.sum()) for each in blank)


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
