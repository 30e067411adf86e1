"""Read the samples of data files, standardised: of the file's own parts, or of a drawn split's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mmkd.data.dataset import SPLITS, Array, Split, chunks, is_padding, mean_and_std
from mmkd.data.hdf5_format import DatasetInfo, open_dataset, stored_statistics
from mmkd.errors import UserError, choose

Source = str | Path | DatasetInfo
"""A data file with its own parts; or its description, with the parts of its `split` if one is drawn."""
Stored = Mapping[str, Split]
"""The file's own parts, with arrays on disk or kept in memory."""

_kept: dict[tuple[str, str, str], Array] = {}
"""Standardised arrays by fingerprint of the data, part of the file and modality, see `keep_split`."""
_raw: dict[tuple[str, str, str], Array] = {}
"""Raw arrays by the same, from which drawn splits are read."""
_statistics: dict[tuple[str, str, str], tuple[Array, Array]] = {}
"""Mean and std by fingerprint, digest of a drawn split, and modality."""


@contextmanager
def _opened(source: Source) -> Iterator[tuple[DatasetInfo, Stored]]:
    """Open a data file: its description, with the drawn split of `source`, and its own parts."""
    if not isinstance(source, DatasetInfo):
        with open_dataset(source) as opened:
            yield opened
        return
    with open_dataset(source.path) as (info, stored):
        if info.fingerprint != source.fingerprint:
            raise UserError(f"{source.path}: has changed while it was in use")
        yield replace(info, split=source.split), stored


@dataclass(frozen=True)
class _Part:
    """Samples of a part without their arrays; `places`: part of the file -> rows there, ascending, and rows here."""

    samples: Split
    places: Mapping[str, tuple[Array, Array]]

    @classmethod
    def of(cls, info: DatasetInfo, split: str, stored: Stored) -> _Part:
        """The samples of a part: of the file, in the file's order; or of a drawn split, in the order of their ids.

        Raises:
            UserError: the file lacks samples of the drawn split.
        """
        if info.split is None:
            everything = np.arange(len(stored[split]))
            return cls(replace(stored[split], arrays={}), {split: (everything, everything)})
        owner = {sample: group for group, members in info.split.parts[split].items() for sample in members}
        order = {sample: row for row, sample in enumerate(sorted(owner))}
        places = {}
        for name in SPLITS:
            rows = [row for row, sample in enumerate(stored[name].ids) if sample in order]
            places[name] = np.array(rows, np.int64), np.array([order[stored[name].ids[row]] for row in rows], np.int64)
        if sum(len(rows) for rows, _ in places.values()) != len(order):
            raise UserError(f"{info.path}: lacks samples of the split {info.split.digest[:12]}")
        scores = {name: part.scores for name, part in stored.items() if part.scores is not None}
        samples = Split(
            arrays={},
            labels=_gather(places, {name: part.labels for name, part in stored.items()}),
            lengths={m: _gather(places, {n: part.lengths[m] for n, part in stored.items()}) for m in info.modalities},
            scores=_gather(places, scores) if scores else None,
            ids=list(order),
            groups=[owner[sample] for sample in order],
        )
        return cls(samples, places)

    def blocks(self, info: DatasetInfo, stored: Stored, modality: str) -> Iterator[tuple[Array, Array]]:
        """Yield the raw values (n, T, F) of the part in chunks, with their rows (n,) here."""
        for name, (rows, targets) in self.places.items():
            array = _raw.get((info.fingerprint, name, modality), stored[name].arrays[modality])
            for chunk in chunks(array):
                first, last = np.searchsorted(rows, [chunk.start, chunk.stop])
                if first < last:
                    yield array[chunk][rows[first:last] - chunk.start], targets[first:last]


def _gather(places: Mapping[str, tuple[Array, Array]], columns: Mapping[str, Array]) -> Array:
    """One value for each sample of a part."""
    gathered = np.empty(sum(len(rows) for rows, _ in places.values()), next(iter(columns.values())).dtype)
    for name, (rows, targets) in places.items():
        gathered[targets] = columns[name][rows]
    return gathered


def read_split(
    source: Source, split: str, modalities: Sequence[str] | None = None, *, standardise: bool = True
) -> Split:
    """Read one split into memory, as float32.

    Args:
        source: a data file, for its own parts; or a description, for those of the split that it was divided by (see
            `mmkd.data.splits.divide`).
        split: train, valid or test.
        modalities: those to read, in this order; None: all.
        standardise: subtract train's mean and divide by its standard deviation, feature by feature. Padded steps
            stay exactly 0.

    Raises:
        UserError: as `read_info`, an unknown split or modality, or values that are not finite.
    """
    with _opened(source) as (info, stored):
        part = _Part.of(info, choose("split", split, SPLITS), stored)
        arrays = {}
        for modality in info.modalities if modalities is None else modalities:
            key = (info.fingerprint, split, modality)
            if standardise and info.split is None and key in _kept:
                arrays[modality] = _kept[key]
                continue
            choose("modality", modality, info.modalities)
            arrays[modality] = array = _read_array(info, stored, part, modality)
            if not all(np.isfinite(array[rows]).all() for rows in chunks(array)):
                raise UserError(
                    f"{info.path}: split {split!r} has values of {modality} that are not finite; "
                    f"mmkd data inspect names the sample; import the data again"
                )
            if standardise:
                _standardise(array, part.samples.lengths[modality], *_train_statistics(info, stored, modality))
        return replace(part.samples, arrays=arrays, lengths={m: part.samples.lengths[m] for m in arrays})


def _read_array(info: DatasetInfo, stored: Stored, part: _Part, modality: str) -> Array:
    """Raw values (N, T, F) of a part as float32."""
    array = np.empty((len(part.samples), info.steps[modality], info.features[modality]), np.float32)
    if info.split is None:
        (name,) = part.places
        stored[name].arrays[modality].read_direct(array)
    else:
        for values, rows in part.blocks(info, stored, modality):
            array[rows] = values
    return array


def _train_statistics(info: DatasetInfo, stored: Stored, modality: str) -> tuple[Array, Array]:
    """Mean and std (F,) over train: stored for the file's own, computed once in this process for a drawn split's."""
    if info.split is None:
        return stored_statistics(stored["train"].arrays[modality])
    key = (info.fingerprint, info.split.digest, modality)
    if key not in _statistics:
        steps = partial(_real_steps, info, stored, _Part.of(info, "train", stored), modality)
        _statistics[key] = mean_and_std(steps, modality in info.vectors)
    return _statistics[key]


def _real_steps(info: DatasetInfo, stored: Stored, part: _Part, modality: str) -> Iterator[Array]:
    lengths = part.samples.lengths[modality]
    for values, rows in part.blocks(info, stored, modality):
        yield values[~is_padding(lengths[rows], values.shape[1])]


def keep_split(source: Source, split: str, modalities: Sequence[str]) -> None:
    """Keep what reading a split needs, for later reads by this process and those forked from it.

    Of the file's own parts, keep the standardised arrays. Of a drawn split, keep the statistics, and the raw arrays
    of the whole file, which serve all drawn splits: it is read once, and each trial standardises its own copy.

    Raises:
        UserError: as `read_split`.
    """
    with _opened(source) as (info, stored):
        if info.split is not None:
            for modality in modalities:
                for name in SPLITS:
                    key = (info.fingerprint, name, modality)
                    _raw[key] = _raw[key] if key in _raw else stored[name].arrays[modality][:]
                _train_statistics(info, stored, modality)
            return
    missing = [modality for modality in modalities if (info.fingerprint, split, modality) not in _kept]
    if missing:
        arrays = read_split(source, split, missing).arrays
        _kept.update({(info.fingerprint, split, modality): array for modality, array in arrays.items()})


def read_statistics(source: Source, modalities: Sequence[str] | None = None) -> dict[str, tuple[Array, Array]]:
    """Mean and std (F_m,) of each modality's features over train, float64, as `read_split` standardises with.

    `modalities` are those to read; None: all.

    Raises:
        UserError: as `read_info`.
    """
    with _opened(source) as (info, stored):
        return {m: _train_statistics(info, stored, m) for m in (info.modalities if modalities is None else modalities)}


def _standardise(array: Array, lengths: Array, mean: Array, std: Array) -> None:
    """Standardise in place and in chunks: every trial waits for it. float32 loses no more than the values had lost."""
    mean, std = mean.astype(np.float32), std.astype(np.float32)
    for rows in chunks(array):
        array[rows] -= mean
        array[rows] /= std
        array[rows][is_padding(lengths[rows], array.shape[1])] = 0.0
