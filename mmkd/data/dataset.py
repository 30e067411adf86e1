"""The content of a data set in memory or on disk, independent of HDF5 (see `hdf5_format`).

Arrays are sliced in chunks of samples, so that everything works on a `numpy.ndarray` in memory and an
`h5py.Dataset` on disk alike, without a second copy of either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LabelKind = Literal["class", "score"]

SPLITS = ("train", "valid", "test")
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Split:
    """The samples of one split, N of them.

    Attributes:
        arrays: modality -> (N, T_m, F_m) float32 or float16: padding (zeros) in front, the last step real. On writing,
            also tensors, other numbers, or a list of N arrays (T, F_m), whose lengths may differ.
        labels: (N,) int64, class index. On writing, also texts, or True and False.
        lengths: modality -> (N,) int64, real steps of each sample, 1 to T_m. On writing, a modality may be left out:
            then its leading all-zero steps are padding.
        scores: (N,) float32 in the score's own units, or None where labels are plain classes.
        ids: N names, unique over all splits. On writing, empty means `train-0`, `train-1`, ...
        groups: the group of each sample (its subject, speaker or video), N names; empty where none are known.
    """

    arrays: dict[str, Any]
    labels: Any
    lengths: dict[str, Array] = field(default_factory=dict)
    scores: Any | None = None
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The meaning of the numbers of a data set, the same for all its splits.

    Attributes:
        modalities: names, in the order in which networks are built.
        classes: names, by class index.
        label_kind: "class", or "score" where classes are bins of a score.
        score_range: the scores of the first and of the last class; None for "class".
        vectors: modality -> number of consecutive features that form one vector in space (3 for xyz); absent: none.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    label_kind: LabelKind
    score_range: tuple[float, float] | None
    vectors: dict[str, int]

    @property
    def class_scores(self) -> Array | None:
        """(C,) float64: the score that each class stands for, evenly spaced; None where labels are plain classes."""
        return None if self.score_range is None else np.linspace(*self.score_range, len(self.classes))


def chunks(array: Array) -> Iterator[slice]:
    """Slices of about 32 MiB over the first axis of `array`."""
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, CHUNK_BYTES // row_bytes)
    return (slice(start, min(start + rows, len(array))) for start in range(0, len(array), rows))


def is_padding(lengths: Array, steps: int) -> Array:
    """(N, steps) bool: True where a step is padding; `lengths` (N,) counts the real steps at the end."""
    padding: Array = np.arange(steps) < steps - lengths[:, None]
    return padding


def edge_zeros(array: Array) -> tuple[Array, Array]:
    """All-zero steps at the beginning and at the end of each sample of `array` (N, T, F): (N,) int64 each.

    Both are T for a sample that is zero throughout.
    """
    leading, trailing = np.empty(len(array), np.int64), np.empty(len(array), np.int64)
    for rows in chunks(array):
        used = (array[rows] != 0).any(axis=2)
        blank = np.where(used.any(axis=1), 0, used.shape[1])
        leading[rows], trailing[rows] = blank + used.argmax(axis=1), blank + used[:, ::-1].argmax(axis=1)
    return leading, trailing


def real_lengths(array: Array) -> Array:
    """(N,) int64: steps of each sample of `array` (N, T, F) after its leading all-zero ones; at least 1."""
    lengths: Array = np.maximum(array.shape[1] - edge_zeros(array)[0], 1)
    return lengths


def train_statistics(train: Split, vectors: Mapping[str, int]) -> dict[str, tuple[Array, Array]]:
    """Mean and standard deviation of every feature over the real steps of `train`.

    The features of a modality of spatial `vectors` share one unit, so they share one std, the root mean square of
    theirs: lengths and angles survive, and a joint that hardly moves is not blown up into noise (on UTD-MHAD's
    skeleton a support vector machine gets .87 this way, .75 with one std per feature).

    Returns:
        modality -> (mean (F,), std (F,)), float64; the std of a constant feature is 1.
    """
    return {m: mean_and_std(partial(_real_steps, a, train.lengths[m]), m in vectors) for m, a in train.arrays.items()}


def _real_steps(array: Array, lengths: Array) -> Iterator[Array]:
    for rows in chunks(array):
        yield array[rows][~is_padding(lengths[rows], array.shape[1])]


def mean_and_std(real_steps: Callable[[], Iterator[Array]], shared: bool) -> tuple[Array, Array]:
    """Mean (F,) and standard deviation (F,), float64, of the steps (n, F) that `real_steps` yields at each call.

    If `shared`, the features share one standard deviation, see `train_statistics`.
    """
    count = sum(len(x) for x in real_steps())
    mean: Array = sum(x.astype(np.float64).sum(axis=0) for x in real_steps()) / count
    variance: Array = sum(((x.astype(np.float64) - mean) ** 2).sum(axis=0) for x in real_steps()) / count
    std = np.sqrt(np.full_like(variance, variance.mean()) if shared else variance)
    std[std <= 1e-7 * np.abs(mean)] = 1.0  # constant, up to what float32 can tell apart
    return mean, std


def fingerprint(meaning: Meaning, splits: Mapping[str, Split]) -> str:
    """SHA-256 (hexadecimal) of everything that a trial computes with: names, shapes, dtypes, values, ids, classes.

    Excludes path, date, source, license, notes and HDF5's own bytes; and groups, because a trial computes with the
    samples of its parts alone. A split that was drawn by groups has its own digest, which covers them (see
    `mmkd.records.SplitRecord`). So groups can be added to a file, and runs on its own parts stay what they are.
    """
    digest = hashlib.sha256()

    def add(name: str, value: object) -> None:
        digest.update(json.dumps([name, value]).encode() + b"\n")

    def add_array(name: str, array: Array) -> None:
        add(name, [str(array.dtype), list(array.shape)])
        for rows in chunks(array):
            digest.update(np.ascontiguousarray(array[rows], dtype=array.dtype.newbyteorder("<")).data)

    for key in ("modalities", "classes", "label_kind", "score_range", "vectors"):
        value = getattr(meaning, key)
        add(key, sorted(value.items()) if isinstance(value, dict) else value)
    for name in SPLITS:
        split = splits[name]
        for modality in meaning.modalities:
            add_array(f"{name}/arrays/{modality}", split.arrays[modality])
            add_array(f"{name}/lengths/{modality}", split.lengths[modality].astype(np.int64))
        add_array(f"{name}/labels", split.labels.astype(np.int64))
        if split.scores is not None:
            add_array(f"{name}/scores", split.scores)
        add(f"{name}/ids", split.ids)
    return digest.hexdigest()
