"""Check that a data set follows the rules of the layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

import numpy as np

from mmkd.data.dataset import SPLITS, Array, Meaning, Split, chunks, is_padding
from mmkd.errors import UserError, choose
from mmkd.terminal import is_plain


def validate(meaning: Meaning, splits: Mapping[str, Split]) -> None:
    """Check every rule of the layout, values included.

    Raises:
        UserError: the first broken rule, with split, modality, sample and value.
    """
    validate_structure(meaning, splits)
    for name, modality in product(SPLITS, meaning.modalities):
        split = splits[name]
        where = f"split {name!r}, modality {modality!r}"
        _validate_values(where, split.arrays[modality], split.lengths[modality], split.ids)


def validate_structure(meaning: Meaning, splits: Mapping[str, Split]) -> None:
    """Check every rule of the layout except those about the arrays' values, which are not read.

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
        _validate_groups(name, split, splits["train"])
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


def _validate_groups(name: str, split: Split, train: Split) -> None:
    if bool(split.groups) != bool(train.groups):
        has = "groups" if split.groups else "no groups"
        raise UserError(f"split {name!r} has {has}, unlike train; give the groups of all splits or of none")
    if split.groups and len(split.groups) != len(split):
        raise UserError(f"split {name!r} has {len(split)} labels, but {len(split.groups)} groups")
    for group, sample in zip(split.groups, split.ids, strict=False):
        if not isinstance(group, str) or not group or not group.isprintable():
            raise UserError(f"split {name!r}, sample {sample!r}: group {group!r} is not a printable text")


def _validate_labels(name: str, split: Split, meaning: Meaning) -> None:
    labels, scores, top = split.labels, split.scores, len(meaning.classes) - 1
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"split {name!r}: labels are {labels.dtype} {labels.shape}, not integers (N,){_label_hint(labels)}"
        )
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


def _label_hint(labels: Array) -> str:
    """The line that converts labels of another form."""
    if labels.ndim == 2:
        return "; convert them with .reshape(-1)" if labels.shape[1] == 1 else "; convert one-hot ones with .argmax(1)"
    return "; convert whole numbers with .astype(int)" if labels.dtype.kind == "f" else ""


def _validate_shape(where: str, array: Array, samples: int, train: Array) -> None:
    if array.dtype not in (np.float32, np.float16):
        raise UserError(f"{where}: dtype is {array.dtype}; convert it with .astype('float32')")
    if array.ndim != 3 or len(array) != samples or 0 in array.shape:
        raise UserError(f"{where}: shape is {array.shape}, not ({samples}, steps, features), one row per label")
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
        _refuse(
            ~finite,
            where,
            ids[rows],
            None,
            "holds NaN or infinity; repair or drop the sample (importers: --replace-inf 0, --drop-nan)",
        )
        used: Array = (x != 0).any(axis=2)
        dirty = np.logical_or.reduce(used & is_padding(lengths[rows], x.shape[1]), axis=1)
        problem = (
            "has values other than 0 before its last {} steps, which its length calls real; pad with zeros in "
            "front, or name the side of the padding (padding=, --padding)"
        )
        _refuse(dirty, where, ids[rows], lengths[rows], problem)


def _refuse(bad: Array, where: str, ids: list[str], values: Array | None, problem: str) -> None:
    """Raise for the first sample that is `bad` (N,); `{}` in `problem` is its value in `values` (N,)."""
    if not bad.any():
        return
    first = int(bad.argmax())
    value = None if values is None else values[first]
    raise UserError(f"{where}, sample {ids[first]!r}: {problem.format(value)}")
