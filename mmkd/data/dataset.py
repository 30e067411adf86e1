"""What a data set holds, and the rules that it keeps. Nothing here knows HDF5 (see `layout`).

Arrays are sliced in chunks of samples, so that everything here works on a `numpy.ndarray` in memory and on an
`h5py.Dataset` on disk alike, without a second copy of either.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmkd.errors import UserError, choose
from mmkd.terminal import is_plain

Array = npt.NDArray[Any]
LabelKind = Literal["class", "score"]

SPLITS = ("train", "valid", "test")
CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Split:
    """The samples of one split, N of them.

    Attributes:
        arrays: modality -> (N, T_m, F_m) float32 or float16: padding (zeros) in front, the last step real.
        labels: (N,) int64, class index.
        lengths: modality -> (N,) int64, real steps of each sample, 1 to T_m. On writing, a modality may be left out:
            then its leading all-zero steps are padding.
        scores: (N,) float32 in the score's own units, or None where labels are plain classes.
        ids: N names, unique over all splits. On writing, empty means `train-0`, `train-1`, ...
    """

    arrays: dict[str, Array]
    labels: Array
    lengths: dict[str, Array] = field(default_factory=dict)
    scores: Array | None = None
    ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the numbers of a data set stand for; the same for all its splits.

    Attributes:
        modalities: names, in the order in which networks are built.
        classes: names, by class index.
        label_kind: "class", or "score" where classes are bins of a score.
        score_range: the scores of the first and of the last class; None for "class".
        vectors: modality -> how many consecutive features are one vector in space (3 for xyz); absent: none are.
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


def real_lengths(array: Array) -> Array:
    """(N,) int64: steps of each sample of `array` (N, T, F) after its leading all-zero ones; at least 1."""
    lengths = np.ones(len(array), np.int64)
    for rows in chunks(array):
        used = (array[rows] != 0).any(axis=2)
        lengths[rows] = np.where(used.any(axis=1), used.shape[1] - used.argmax(axis=1), 1)
    return lengths


def complete(name: str, split: Split) -> Split:
    """`split` with the lengths and ids that were left out. Copies no array."""
    arrays = {modality: np.asarray(given) for modality, given in split.arrays.items()}
    lengths = {modality: np.asarray(given) for modality, given in split.lengths.items()}
    for modality, array in arrays.items():
        if modality not in lengths and array.ndim == 3 and array.size:  # `validate` refuses other shapes
            lengths[modality] = real_lengths(array)
    scores = None if split.scores is None else np.asarray(split.scores, np.float32)
    ids = list(split.ids) or [f"{name}-{i}" for i in range(len(split))]
    return replace(split, arrays=arrays, labels=np.asarray(split.labels), lengths=lengths, scores=scores, ids=ids)


def train_statistics(train: Split, vectors: Mapping[str, int]) -> dict[str, tuple[Array, Array]]:
    """Mean and standard deviation of every feature over the real steps of `train`.

    The features of a modality of spatial `vectors` share one unit, so they share one std, the root mean square of
    their own: lengths and angles survive, and a joint that hardly moves is not blown up into noise (on UTD-MHAD's
    skeleton a support vector machine gets .87 so and .75 with a std a feature).

    Returns:
        modality -> (mean (F,), std (F,)), float64; the std of a constant feature is 1.
    """
    return {m: _mean_and_std(array, train.lengths[m], m in vectors) for m, array in train.arrays.items()}


def _mean_and_std(array: Array, lengths: Array, shared: bool) -> tuple[Array, Array]:
    def real_steps() -> Iterator[Array]:
        for rows in chunks(array):
            yield array[rows][~is_padding(lengths[rows], array.shape[1])].astype(np.float64)

    count = int(lengths.sum())
    mean = sum((x.sum(axis=0) for x in real_steps()), np.zeros(array.shape[2])) / count
    variance = sum((((x - mean) ** 2).sum(axis=0) for x in real_steps()), np.zeros(array.shape[2])) / count
    std = np.sqrt(np.full_like(variance, variance.mean()) if shared else variance)
    std[std <= 1e-7 * np.abs(mean)] = 1.0  # constant, up to what float32 can tell apart
    return mean, std


def fingerprint(meaning: Meaning, splits: Mapping[str, Split]) -> str:
    """SHA-256 (hexadecimal) of everything that a trial computes with: names, shapes, dtypes, values, ids, classes.

    Path, date, source, license, notes and HDF5's own bytes are not in it.
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


def validate(meaning: Meaning, splits: Mapping[str, Split]) -> None:
    """Check every rule of the layout, values included.

    Raises:
        UserError: the first rule broken, with split, modality, sample and value.
    """
    validate_structure(meaning, splits)
    for name, modality in product(SPLITS, meaning.modalities):
        split = splits[name]
        where = f"split {name!r}, modality {modality!r}"
        _validate_values(where, split.arrays[modality], split.lengths[modality], split.ids)


def validate_structure(meaning: Meaning, splits: Mapping[str, Split]) -> None:
    """Check every rule of the layout but those about the arrays' values, which are not read.

    Raises:
        UserError: as `validate`.
    """
    _validate_meaning(meaning)
    if set(splits) != set(SPLITS):
        raise UserError(f"the splits must be {', '.join(SPLITS)}, not {', '.join(splits) or 'none'}")
    owners: dict[str, str] = {}
    for name in SPLITS:
        split = splits[name]
        if len(split) == 0:
            raise UserError(f"split {name!r} is empty; every split needs at least one sample")
        if set(split.arrays) != set(meaning.modalities):
            raise UserError(
                f"split {name!r} has the modalities {', '.join(split.arrays)}, not "
                f"{', '.join(meaning.modalities)} like train"
            )
        _validate_ids(name, split, owners)
        _validate_labels(name, split, meaning)
        for modality in meaning.modalities:
            where = f"split {name!r}, modality {modality!r}"
            _validate_shape(where, split.arrays[modality], len(split), splits["train"].arrays[modality])
            _validate_lengths(where, split.lengths[modality], split.arrays[modality].shape[1], split.ids)
    for modality, width in meaning.vectors.items():
        choose("modality of vectors", modality, meaning.modalities)
        features = splits["train"].arrays[modality].shape[2]
        if type(width) is not int or width < 2 or features % width:
            raise UserError(f"vectors of modality {modality!r}: {features} features are not vectors of {width}")


def _validate_meaning(meaning: Meaning) -> None:
    if not meaning.modalities:
        raise UserError("split 'train' has no modality; give at least one array")
    for modality in meaning.modalities:
        if not re.fullmatch(r"[A-Za-z][\w-]{0,39}", modality, re.ASCII):
            raise UserError(f"modality name {modality[:100]!r}: use 1 to 40 letters, digits, _, -, with a letter first")
    if len(meaning.classes) < 2 or len(set(meaning.classes)) < len(meaning.classes) or "" in meaning.classes:
        raise UserError(f"classes {list(meaning.classes)}: give two or more names, all different and none empty")
    for name in meaning.classes:
        if not isinstance(name, str) or not is_plain(name):
            raise UserError(f"class name {name!r}: one line of printable characters")
    choose("label_kind", meaning.label_kind, ("class", "score"))
    bounds = meaning.score_range
    if (meaning.label_kind == "score") != (bounds is not None):
        need = "give score_range" if bounds is None else "leave score_range out"
        raise UserError(f"label_kind is {meaning.label_kind!r} and score_range {bounds}; {need}")
    if bounds is not None and not -np.inf < bounds[0] < bounds[1] < np.inf:
        raise UserError(f"score_range {bounds}: give the score of the first class and a higher one of the last")


def _validate_ids(name: str, split: Split, owners: dict[str, str]) -> None:
    if len(split.ids) != len(split):
        raise UserError(f"split {name!r} has {len(split)} labels, but {len(split.ids)} ids")
    for sample in split.ids:
        if not isinstance(sample, str) or not sample or not sample.isprintable():
            raise UserError(f"split {name!r}: sample id {sample!r} is not a printable text")
        if sample in owners:
            raise UserError(f"sample id {sample!r} occurs in {owners[sample]!r} and in {name!r}; ids must be unique")
        owners[sample] = name


def _validate_labels(name: str, split: Split, meaning: Meaning) -> None:
    labels, scores, top = split.labels, split.scores, len(meaning.classes) - 1
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"split {name!r}: labels are {labels.dtype} {labels.shape}, not integers (N,)")
    _refuse((labels < 0) | (labels > top), f"split {name!r}", split.ids, labels, f"label {{}} is not in 0..{top}")
    if (scores is not None) != (meaning.label_kind == "score"):
        has = "no scores" if scores is None else "scores"
        raise UserError(f"split {name!r} has {has}, but label_kind is {meaning.label_kind!r}")
    centres = meaning.class_scores
    if scores is None or centres is None:
        return
    if scores.shape != labels.shape:
        raise UserError(f"split {name!r}: scores have the shape {scores.shape}, labels {labels.shape}")
    _refuse(~np.isfinite(scores), f"split {name!r}", split.ids, scores, "score {} is not finite")
    far = np.abs(np.clip(scores, centres[0], centres[-1]) - centres[labels]) > 0.5001 * (centres[1] - centres[0])
    _refuse(far, f"split {name!r}", split.ids, scores, "score {} is nearer to another class than to its label")


def _validate_shape(where: str, array: Array, samples: int, train: Array) -> None:
    if array.dtype not in (np.float32, np.float16):
        raise UserError(f"{where}: dtype is {array.dtype}; convert it with .astype('float32') (or 'float16')")
    if array.ndim != 3 or len(array) != samples or 0 in array.shape:
        raise UserError(f"{where}: shape is {array.shape}, not ({samples}, steps, features), one row a label")
    if array.shape[1:] != train.shape[1:]:
        raise UserError(f"{where}: {array.shape[1:]} steps and features, but train has {train.shape[1:]}")


def _validate_lengths(where: str, lengths: Array, steps: int, ids: list[str]) -> None:
    if lengths.shape != (len(ids),) or lengths.dtype.kind not in "iu":
        raise UserError(f"{where}: lengths are {lengths.dtype} {lengths.shape}, not integers ({len(ids)},)")
    _refuse((lengths < 1) | (lengths > steps), where, ids, lengths, f"length {{}} is not in 1..{steps}")


def _validate_values(where: str, array: Array, lengths: Array, ids: list[str]) -> None:
    for rows in chunks(array):
        x = array[rows]
        finite = np.logical_and.reduce(np.isfinite(x), axis=(1, 2))
        _refuse(~finite, where, ids[rows], None, "holds NaN or infinity; repair or drop the sample")
        used: Array = (x != 0).any(axis=2)
        dirty = np.logical_or.reduce(used & is_padding(lengths[rows], x.shape[1]), axis=1)
        problem = (
            "has values other than 0 before its last {} steps, which its length calls real; pad with zeros in front"
        )
        _refuse(dirty, where, ids[rows], lengths[rows], problem)


def _refuse(bad: Array, where: str, ids: list[str], values: Array | None, problem: str) -> None:
    """Raise for the first sample that is `bad` (N,); `{}` in `problem` is its value in `values` (N,)."""
    if not bad.any():
        return
    first = int(bad.argmax())
    value = None if values is None else values[first]
    raise UserError(f"{where}, sample {ids[first]!r}: {problem.format(value)}")
