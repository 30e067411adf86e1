"""Read and check data files in the HDF5 layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkd.data.dataset import SPLITS, Array, Split, chunks, fingerprint, is_padding, train_statistics
from mmkd.data.hdf5_format import DatasetInfo, open_dataset, stored_statistics
from mmkd.data.validation import validate
from mmkd.errors import UserError, choose, errors_about


def read_info(path: str | Path) -> DatasetInfo:
    """Read the description of the file at `path`: attributes, shapes and labels only.

    Raises:
        UserError: no such file, a truncated or foreign one, or one of another layout version.
    """
    with open_dataset(path) as (info, _):
        return info


def read_split(
    path: str | Path, split: str, modalities: Sequence[str] | None = None, *, standardise: bool = True
) -> Split:
    """Read one split into memory, as float32.

    Args:
        path: a file of this layout.
        split: train, valid or test.
        modalities: those to read, in this order; None: all.
        standardise: subtract train's mean and divide by its standard deviation, feature by feature. Padded steps
            stay exactly 0.

    Raises:
        UserError: as `read_info`, an unknown split or modality, or values that are not finite.
    """
    with open_dataset(path) as (info, splits):
        stored = splits[choose("split", split, SPLITS)]
        arrays = {}
        for modality in info.modalities if modalities is None else modalities:
            source = stored.arrays[choose("modality", modality, info.modalities)]
            arrays[modality] = np.empty(source.shape, np.float32)
            source.read_direct(arrays[modality])  # type: ignore[attr-defined]  # an h5py.Dataset, see open_dataset
            if not all(np.isfinite(arrays[modality][rows]).all() for rows in chunks(arrays[modality])):
                raise UserError(
                    f"{path}: split {split!r} has values of {modality} that are not finite; "
                    f"python -m mmkd.data inspect names the sample; import the data again"
                )
            if standardise:
                statistics = stored_statistics(splits["train"].arrays[modality])
                _standardise(arrays[modality], stored.lengths[modality], *statistics)
        lengths = {modality: stored.lengths[modality] for modality in arrays}
        return Split(arrays=arrays, lengths=lengths, labels=stored.labels, scores=stored.scores, ids=stored.ids)


def read_statistics(path: str | Path) -> dict[str, tuple[Array, Array]]:
    """Mean and std (F_m,) of each modality's features over train, float64, as `read_split` standardises with.

    Raises:
        UserError: as `read_info`.
    """
    with open_dataset(path) as (info, splits):
        return {modality: stored_statistics(splits["train"].arrays[modality]) for modality in info.modalities}


def _standardise(array: Array, lengths: Array, mean: Array, std: Array) -> None:
    """Standardise in place and in chunks: every trial waits for it. float32 loses no more than the values had lost."""
    mean, std = mean.astype(np.float32), std.astype(np.float32)
    for rows in chunks(array):
        array[rows] -= mean
        array[rows] /= std
        array[rows][is_padding(lengths[rows], array.shape[1])] = 0.0


def check_dataset(path: str | Path) -> DatasetInfo:
    """Read all of the file at `path` and check it as `write_dataset` would.

    Raises:
        UserError: as `read_info`; or a broken rule (split, modality, sample); or content changed since it was written.
    """
    with open_dataset(path) as (info, splits), errors_about(f"{path}"):
        validate(info, splits)
        found = fingerprint(info, splits)
        if found != info.fingerprint:
            raise UserError(
                f"content has the fingerprint {found[:12]}, but the file was written with "
                f"{info.fingerprint[:12]}: it was changed since; import it again"
            )
        for modality, expected in train_statistics(splits["train"], info.vectors).items():
            attributes = splits["train"].arrays[modality].attrs  # type: ignore[attr-defined]
            stored = attributes["mean"], attributes["std"]
            if np.shape(stored) != np.shape(expected) or not np.allclose(stored, expected):
                raise UserError(f"modality {modality!r}: mean or std are not those of train; import it again")
        return info
