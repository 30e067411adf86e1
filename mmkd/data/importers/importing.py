"""The last part of every import: repairs that the user asked for, padding, what was found, and the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmkd.data.dataset import Array, Split, chunks
from mmkd.data.hdf5_write import write_dataset
from mmkd.data.importers.meanings import Known, nearest_class
from mmkd.data.padding import Padding, Side, pad_in_front
from mmkd.errors import UserError
from mmkd.formatting import count

Progress = Callable[[str], object]
"""Called with each next step, in words."""

SHOWN = 5
"""Names that a message lists."""


def ignore(what: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Options:
    """The user's decisions about an import, and who hears of it.

    Attributes:
        padding: the side of the padding, see `pad_in_front`; None: lengths and zeros decide.
        replace_inf: the value in place of infinite ones; None: they are refused.
        drop_nan: drop samples with NaN in a feature or label; otherwise they are refused.
        progress: called with each next step.
        report: called with what was found and done, a line each.
    """

    padding: Padding | None = None
    replace_inf: float | None = None
    drop_nan: bool = False
    progress: Progress = ignore
    report: Progress = ignore


DEFAULT = Options()
"""No repairs; lengths and zeros decide about padding."""


@dataclass(frozen=True)
class Facts:
    """Arguments of `write_dataset` beside the splits."""

    classes: tuple[str, ...]
    source: str
    license: str
    score_range: tuple[float, float] | None = None


def write_import(
    out: str | Path, splits: Mapping[str, Split], facts: Facts, notes: Sequence[str], options: Options, usual: Side
) -> str:
    """Repair as asked, move padding to the front, report, and write; return the fingerprint.

    The arrays of `splits`, which have ids, are changed in place. `usual` is the side on which the source pads.
    """
    done = list(notes)
    if options.replace_inf is not None:
        done += _replace_infinite(splits, options.replace_inf)
    if options.drop_nan:
        splits, lines = _drop_nan(splits)
        done += lines
    splits = _settle_padding(splits, options, usual)
    for line in (*done, *_absent(splits)):
        options.report(line)
    return write_dataset(
        out,
        splits,
        classes=facts.classes,
        source=facts.source,
        license=facts.license,
        label_kind="class" if facts.score_range is None else "score",
        score_range=facts.score_range,
        notes="; ".join(done),
        progress=options.progress,
    )


def with_labels(where: str, split: Split, values: Array, known: Known, options: Options) -> Split:
    """`split` with the classes, and where labels are scores the scores, of `values` (N,); NaN is dropped if asked.

    Raises:
        UserError: a value is NaN, and such samples are not to be dropped.
    """
    missing = np.isnan(values)
    if missing.any():
        if not options.drop_nan:
            sample = split.ids[int(missing.argmax())]
            raise UserError(f"{where}, sample {sample}: label is NaN; --drop-nan drops such samples")
        if missing.all():
            raise UserError(f"{where}: every label is NaN; no sample is left")
        dropped = [split.ids[n] for n in np.flatnonzero(missing)]
        options.report(f"{where}: dropped {count(len(dropped), 'sample')} whose label is NaN: {some(dropped)}")
        split, values = select(split, ~missing), values[~missing]
    if known.score_range is None:
        return replace(split, labels=np.searchsorted(known.values, values))
    labels = nearest_class(values, known.score_range, len(known.classes))
    return replace(split, labels=labels, scores=values.astype(np.float32))


def _replace_infinite(splits: Mapping[str, Split], value: float) -> list[str]:
    """Replace infinite features in place."""
    lines = []
    for modality in next(iter(splits.values())).arrays:
        found = 0
        for split in splits.values():
            array = split.arrays[modality]
            for rows in chunks(array):
                infinite = np.isinf(array[rows])
                found += int(infinite.sum())
                array[rows][infinite] = value
        if found:
            lines.append(f"{found} infinite values of {modality} set to {value:g}")
    return lines


def _drop_nan(splits: Mapping[str, Split]) -> tuple[dict[str, Split], list[str]]:
    """Drop samples with NaN in a feature."""
    kept, lines = {}, []
    for name, split in splits.items():
        bad = np.zeros(len(split), bool)
        for array in split.arrays.values():
            for rows in chunks(array):
                bad[rows] |= np.isnan(array[rows]).any(axis=(1, 2))
        if not bad.any():
            kept[name] = split
            continue
        if bad.all():
            raise UserError(f"split {name!r}: every sample holds NaN; none is left")
        dropped = [split.ids[n] for n in np.flatnonzero(bad)]
        lines.append(f"dropped {count(len(dropped), 'sample')} of {name} with NaN: {some(dropped)}")
        kept[name] = select(split, ~bad)
    return kept, lines


def select(split: Split, chosen: Array) -> Split:
    """The samples where `chosen` (N,) is True."""
    rows = np.flatnonzero(chosen)
    return replace(
        split,
        arrays={m: array[rows] for m, array in split.arrays.items()},
        lengths={m: lengths[rows] for m, lengths in split.lengths.items()},
        labels=split.labels[rows],
        scores=None if split.scores is None else split.scores[rows],
        ids=[split.ids[row] for row in rows],
        groups=[split.groups[row] for row in rows] if split.groups else [],
    )


def stack_sequences(
    sequences: Mapping[str, Mapping[str, list[Array]]],
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
    """Stack the sequences (T, F) of each part and modality, with zeros in front; the lists are emptied.

    Returns:
        part -> modality -> array (N, T, F), float16 where all sequences are; and part -> modality -> lengths (N,). If
        all sequences of a modality are equally long, they have none: their lengths say nothing about padding.
    """
    stacked: dict[str, dict[str, Array]] = {part: {} for part in sequences}
    lengths: dict[str, dict[str, Array]] = {part: {} for part in sequences}
    for modality in next(iter(sequences.values())):
        everything = [sequence for part in sequences.values() for sequence in part[modality]]
        counts = {len(sequence) for sequence in everything}
        dtype = np.result_type(*{sequence.dtype for sequence in everything})
        width, longest = everything[0].shape[1], max(counts)
        del everything
        for name, part in sequences.items():
            made = stacked[name][modality] = np.zeros((len(part[modality]), longest, width), dtype)
            if len(counts) > 1:
                lengths[name][modality] = np.array([len(sequence) for sequence in part[modality]])
            for row in range(len(made) - 1, -1, -1):
                sequence = part[modality].pop()  # frees it: both copies would need twice the memory
                made[row, longest - len(sequence) :] = sequence
    return stacked, lengths


def _settle_padding(splits: Mapping[str, Split], options: Options, usual: Side) -> dict[str, Split]:
    arrays: dict[str, dict[str, Array]] = {name: {} for name in splits}
    lengths: dict[str, dict[str, Array]] = {name: {} for name in splits}
    for modality in next(iter(splits.values())).arrays:
        options.progress(f"looking at the padding of {modality}")
        settled = pad_in_front(
            modality,
            {name: split.arrays[modality] for name, split in splits.items()},
            {name: split.lengths[modality] for name, split in splits.items() if modality in split.lengths},
            padding=options.padding,
            usual=usual,
            owned=True,
        )
        for name, (array, real) in settled.items():
            arrays[name][modality], lengths[name][modality] = array, real
    return {n: replace(split, arrays=arrays[n], lengths=lengths[n]) for n, split in splits.items()}


def _absent(splits: Mapping[str, Split]) -> list[str]:
    """A line for each modality that samples lack: all their steps are zero."""
    lines = []
    for modality in next(iter(splits.values())).arrays:
        names = []
        for split in splits.values():
            short = split.lengths[modality] == 1
            blank = short & ~split.arrays[modality][:, -1].any(axis=1)
            names += [split.ids[n] for n in np.flatnonzero(blank)]
        if names:
            lines.append(f"{modality} is missing (all zero) in {count(len(names), 'sample')}: {some(names)}")
    return lines


def some(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
