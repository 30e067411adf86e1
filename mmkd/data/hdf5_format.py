"""The HDF5 layout of data files: open and check them. `mmkd.data.reading` reads their samples.

    /                            attributes: mmkd_layout, fingerprint, source, license, notes, and as JSON modalities,
                                 classes, label_kind, score_range, vectors
    /{split}/labels              (N,) int64
    /{split}/scores              (N,) float32, only where label_kind is "score"
    /{split}/ids                 (N,) UTF-8; like all text of a fixed length, see `mmkd.stored_text`
    /{split}/groups              (N,) UTF-8, optional: subject, speaker or video of each sample
    /{split}/arrays/{modality}   (N, T, F) float32 or float16; in train with the attributes mean and std, (F,) float64
    /{split}/lengths/{modality}  (N,) int64

Files are opened without locks: shared file systems often lack them, and a file never changes under its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkd.data.dataset import SPLITS, Array, Meaning, Split, fingerprint, train_statistics
from mmkd.data.identify import identify
from mmkd.data.untrusted import check_stored
from mmkd.data.validation import validate, validate_structure
from mmkd.errors import UserError, errors_about
from mmkd.records import SplitRecord
from mmkd.stored_text import read_attribute
from mmkd.terminal import one_line

LAYOUT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class DatasetInfo(Meaning):
    """The description of a data file: the attributes of `Meaning`, and these.

    Attributes:
        path: the file.
        steps: modality -> T_m, steps of every (padded) sequence.
        features: modality -> F_m, features per step.
        sizes: split -> number of samples.
        class_counts: split -> samples of each class, by class index.
        group_counts: split -> group -> samples, groups in order; empty where the file has no groups.
        source: origin of the data; starts with "synthetic" if they are made up.
        license: the terms of the data.
        notes: how they were prepared.
        fingerprint: SHA-256 of the content, see `dataset.fingerprint`.
        layout_version: of the file.
        split: the drawn split whose parts `sizes` and the counts describe; None: the file's own. See `data.splits`.
    """

    path: Path
    steps: dict[str, int]
    features: dict[str, int]
    sizes: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    source: str
    license: str
    notes: str
    fingerprint: str
    layout_version: int
    group_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    split: SplitRecord | None = None


@contextmanager
def open_dataset(path: str | Path) -> Iterator[tuple[DatasetInfo, dict[str, Split]]]:
    """Open a data file: its description, and its splits, whose arrays stay on disk (h5py.Dataset) until sliced.

    Raises:
        UserError: no such file, a truncated or foreign one, or one of another layout version.
    """
    path = Path(path)
    with _open(path) as file:
        with errors_about(f"{path}"):
            try:
                _check_version(file)
                splits = {name: _view_split(file[name], path) for name in SPLITS}
                info = _info(path, file, splits)
            except _DAMAGE as error:
                raise UserError(f"damaged or incomplete ({error}); import it again") from error
        try:
            yield info, splits
        except OSError as error:
            raise UserError(f"{path}: cannot be read to its end ({error}); import it again") from error


_DAMAGE = (KeyError, ValueError, TypeError, AttributeError, IndexError, OSError, RuntimeError, MemoryError)
"""Exceptions of h5py and json on damaged files, and of values of an unexpected kind."""


def _check_version(file: Any) -> None:
    if "mmkd_layout" not in file.attrs:
        known = identify(file.filename) or "import it, see `mmkd data --help`"
        raise UserError(f"an HDF5 file, but not of mmkd's layout; {known}")
    version = int(read_attribute(file, "mmkd_layout"))
    if version != LAYOUT_VERSION:
        remedy = "update mmkd" if version > LAYOUT_VERSION else "import the data again"
        raise UserError(f"layout version {version}, this mmkd reads version {LAYOUT_VERSION}; {remedy}")


def _open(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path}: a directory, and no such data file; {identify(path) or 'see `mmkd data --help`'}")
    if not path.is_file():
        raise UserError(f"{path}: no such data file; make one, see `mmkd data --help`")
    try:
        return h5py.File(path, "r", locking=False)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except OSError as error:
        problem = "a truncated or damaged HDF5 file" if h5py.is_hdf5(path) else "not an HDF5 file"
        remedy = identify(path) or "import the data again, see `mmkd data --help`"
        raise UserError(f"{path}: {problem}; {remedy}") from error


def _view_split(group: Any, path: Path) -> Split:
    scores = [group["scores"]] if "scores" in group else []
    groups = [group["groups"]] if "groups" in group else []
    columns = (group["labels"], group["ids"], *scores, *groups)
    for dataset in (*columns, *group["arrays"].values(), *group["lengths"].values()):
        check_stored(dataset, path)
    return Split(
        arrays=dict(group["arrays"]),
        labels=group["labels"][:],
        lengths={modality: lengths[:] for modality, lengths in group["lengths"].items()},
        scores=group["scores"][:] if "scores" in group else None,
        ids=group["ids"].asstr()[:].tolist(),
        groups=groups[0].asstr()[:].tolist() if groups else [],
    )


def _info(path: Path, file: Any, splits: Mapping[str, Split]) -> DatasetInfo:
    meaning = {f.name: json.loads(read_attribute(file, f.name)) for f in fields(Meaning)}
    for key in ("modalities", "classes", "score_range"):
        meaning[key] = None if meaning[key] is None else tuple(meaning[key])
    try:
        validate_structure(Meaning(**meaning), splits)
    except UserError as error:
        raise ValueError(error) from None
    for modality, array in splits["train"].arrays.items():
        mean, std = stored_statistics(array)
        if not all(np.shape(x) == array.shape[2:] and np.isfinite(x).all() for x in (mean, std)) or np.min(std) <= 0:
            raise ValueError(f"modality {modality!r}: no mean and standard deviation of each feature")
    shapes = {m: splits["train"].arrays[m].shape for m in meaning["modalities"]}
    classes = len(meaning["classes"])
    return DatasetInfo(
        **meaning,
        path=path,
        steps={m: shape[1] for m, shape in shapes.items()},
        features={m: shape[2] for m, shape in shapes.items()},
        sizes={name: len(split) for name, split in splits.items()},
        class_counts={n: count_classes(s.labels, classes) for n, s in splits.items()},
        group_counts={n: count_groups(s.groups) for n, s in splits.items() if s.groups},
        layout_version=int(read_attribute(file, "mmkd_layout")),
        source=one_line(read_attribute(file, "source")),
        license=one_line(read_attribute(file, "license")),
        notes=one_line(read_attribute(file, "notes")),
        fingerprint=one_line(read_attribute(file, "fingerprint")),
    )


def count_classes(labels: Array, classes: int) -> tuple[int, ...]:
    """Samples of each class, by class index."""
    return tuple(np.bincount(labels, minlength=classes).tolist())


def count_groups(groups: Sequence[str]) -> dict[str, int]:
    """Samples of each group, in order of names."""
    return dict(sorted(Counter(groups).items()))


def stored_statistics(array: Any) -> tuple[Array, Array]:
    """Mean and std (F,) that are stored with a modality of train, an h5py.Dataset."""
    return read_attribute(array, "mean"), read_attribute(array, "std")


def read_info(path: str | Path) -> DatasetInfo:
    """Read the description of the file at `path`: attributes, shapes and labels only.

    Raises:
        UserError: no such file, a truncated or foreign one, or one of another layout version.
    """
    with open_dataset(path) as (info, _):
        return info


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
            attributes = splits["train"].arrays[modality].attrs
            stored = attributes["mean"], attributes["std"]
            if np.shape(stored) != np.shape(expected) or not np.allclose(stored, expected):
                raise UserError(f"modality {modality!r}: mean or std are not those of train; import it again")
        return info
