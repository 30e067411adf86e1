"""Convert what users hold (lists, tensors, texts, other dtypes) to the arrays of a data set, where nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmkd.data.dataset import SPLITS, Array, Split, chunks
from mmkd.data.padding import Padding, pad_in_front
from mmkd.errors import UserError, choose

ALIASES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("training", "tr"), "train"),
    **dict.fromkeys(("val", "validation", "dev", "development"), "valid"),
    **dict.fromkeys(("testing", "te"), "test"),
}
"""Split names that others use."""


def split_name(name: object) -> str:
    """The split that `name` stands for: dev is valid; an unknown name as it is."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return ALIASES.get(text.strip().lower(), text)


def by_split(where: str, parts: Mapping[Any, Any]) -> dict[str, Any]:
    """`parts` by our names of the splits.

    Raises:
        UserError: two names stand for one split.
    """
    found: dict[str, Any] = {}
    names: dict[str, object] = {}
    for given, part in parts.items():
        name = split_name(given)
        if name in found:
            raise UserError(f"{where}: {names[name]!r} and {given!r} are both the split {name!r}; keep one")
        found[name], names[name] = part, given
    return {name: found[name] for name in [*(n for n in SPLITS if n in found), *(n for n in found if n not in SPLITS)]}


def complete(
    splits: Mapping[str, Split], classes: Sequence[str] | None, padding: Padding | None = None, *, owned: bool = False
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Convert all parts of `splits` and fill in what was left out; return them with the names of the classes.

    Values are copied only where they must change. `owned`: the arrays may be changed in place.

    Raises:
        UserError: a value cannot be converted without a loss, naming the sample and the converting line; or nothing
            says where the padding is, see `pad_in_front`.
    """
    splits = by_split("splits", splits)
    names = {name: _names(f"split {name!r}, ids", split.ids) for name, split in splits.items()}
    names = {name: ids or [f"{name}-{i}" for i in range(len(splits[name]))] for name, ids in names.items()}
    known = _classes(splits, classes)
    arrays: dict[str, dict[str, Array]] = {name: {} for name in splits}
    lengths: dict[str, dict[str, Array]] = {name: {} for name in splits}
    modalities = dict.fromkeys(modality for split in splits.values() for modality in split.arrays)
    for modality in modalities:
        found = {
            name: as_sequences(f"split {name!r}, modality {modality!r}", split.arrays[modality], names[name])
            for name, split in splits.items()
            if modality in split.arrays
        }
        given = {n: as_array(splits[n].lengths[modality]) for n in found if modality in splits[n].lengths}
        whole, real = _stack(modality, found, given)
        usable = {n: array for n, array in whole.items() if _is_usable(array, real.get(n))}
        known_lengths = {n: real[n] for n in usable if n in real}
        settled = pad_in_front(f"modality {modality!r}", usable, known_lengths, padding=padding, owned=owned)
        for name, array in whole.items():
            unusable = array, real.get(name, np.zeros(0, np.int64))
            arrays[name][modality], lengths[name][modality] = settled.get(name, unusable)
    return {
        name: Split(
            arrays={m: arrays[name][m] for m in split.arrays},
            labels=_labels(f"split {name!r}", split.labels, known, names[name]),
            lengths=lengths[name],
            scores=None if split.scores is None else narrow(f"split {name!r}, scores", split.scores, names[name]),
            ids=names[name],
            groups=_names(f"split {name!r}, groups", split.groups),
        )
        for name, split in splits.items()
    }, known


def _is_usable(array: Array, lengths: Array | None) -> bool:
    """False for shapes that `validate` refuses."""
    fits = lengths is None or (lengths.shape == array.shape[:1] and lengths.dtype.kind in "iu")
    return array.ndim == 3 and array.size > 0 and fits


def as_array(value: Any) -> Array:
    """`value` as an array: a tensor of torch, a masked array without a masked value, a list of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise UserError("a masked array with masked values; fill them with x.filled(0), or drop the samples")
        value = value.data
    return np.asarray(value)


def as_sequences(where: str, value: Any, names: Sequence[str]) -> Array | list[Array]:
    """The features of N samples: an array (N, T, F); or arrays (T, F), whose lengths may differ.

    Args:
        where: begins the message of an error.
        value: an array or tensor; a list or an object array of arrays, tensors or nested lists.
        names: of the samples.

    Raises:
        UserError: a value does not fit float32, or is no number.
    """
    try:
        if hasattr(value, "detach") or (isinstance(value, np.ndarray) and value.dtype != object):
            return narrow(where, value, names)
        items = [as_array(item) for item in value]
    except UserError as error:
        raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: no array of numbers ({error}); build one with np.stack([...])") from None
    shaped = [item.reshape(len(item), 1) if item.ndim == 1 and len(item) else item for item in items]
    if isinstance(value, np.ndarray) and value.ndim > 1:
        shaped = items  # an object array of numbers
    parts = []
    for number, item in enumerate(shaped):
        name = names[number] if number < len(names) else str(number)
        if item.dtype == object:
            item = _from_objects(f"{where}, sample {name!r}", item)
        if item.ndim != 2 or item.shape[1] != shaped[0].shape[1] or not item.size:
            first = f"; the first sample has {shaped[0].shape}" if shaped[0].ndim == 2 and item is not shaped[0] else ""
            raise UserError(f"{where}, sample {name!r}: its shape is {item.shape}, not (steps, features){first}")
        parts.append(narrow(f"{where}, sample {name!r}", item))
    return parts


def _from_objects(where: str, item: Array) -> Array:
    """Numbers that were stored as objects."""
    kinds = sorted({type(value).__name__ for value in item.flat if not isinstance(value, (int, float, np.number))})
    if kinds:
        raise UserError(f"{where}: holds {', '.join(kinds)}, not numbers; convert it with .astype('float32')")
    return item.astype(np.float64)


def narrow(where: str, value: Any, names: Sequence[str] = ()) -> Array:
    """Numbers as float32, or float16 where they are that already; an array that needs no change is not copied.

    Raises:
        UserError: a finite value that float32 cannot hold, or a whole number that it cannot hold exactly.
    """
    try:
        array = as_array(value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where}: dtype is {array.dtype}, not numbers; convert it with .astype('float32')")
    made = np.empty(array.shape, np.float32)
    for rows in chunks(array) if array.ndim else ():
        with np.errstate(over="ignore", under="ignore"):
            made[rows] = array[rows]
        exact = array.dtype.kind == "f"
        lost = np.isinf(made[rows]) & np.isfinite(array[rows]) if exact else made[rows].astype("f8") != array[rows]
        if lost.any():
            first = np.unravel_index(int(lost.argmax()), lost.shape)
            number = rows.start + int(first[0])
            sample = f", sample {names[number]!r}" if number < len(names) else ""
            raise UserError(
                f"{where}{sample}: {array[rows][first]} does not fit float32; scale the feature, or repair the value"
            )
    return made


def _stack(
    modality: str, found: Mapping[str, Array | list[Array]], given: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """One array for each split, and its lengths where they are known: lists of unlike arrays are padded in front."""
    lists = {name: parts for name, parts in found.items() if isinstance(parts, list)}
    counts = {name: np.array([len(part) for part in parts]) for name, parts in lists.items()}
    if not any(parts for parts in lists.values()):
        return {
            n: parts if not isinstance(parts, list) else np.zeros((0, 0, 0), np.float32) for n, parts in found.items()
        }, given
    longest = max(int(count.max()) for count in counts.values() if len(count))
    longest = max([longest, *(a.shape[1] for a in found.values() if not isinstance(a, list) and a.ndim == 3)])
    differ = any((count != longest).any() for count in counts.values())
    whole, real = {}, dict(given)
    for name, parts in found.items():
        if not isinstance(parts, list):
            whole[name] = parts
            continue
        if name in given and differ:
            raise UserError(f"split {name!r}, modality {modality!r}: a list has its own lengths; leave lengths= out")
        dtype = parts[0].dtype if parts and len({part.dtype for part in parts}) == 1 else np.dtype(np.float32)
        width = next(part.shape[1] for each in lists.values() for part in each)
        whole[name] = np.zeros((len(parts), longest, width), dtype)
        for row, part in zip(whole[name], parts, strict=True):
            if part.shape[1] != width:
                raise UserError(f"split {name!r}, modality {modality!r}: {part.shape[1]} features, and {width} before")
            row[longest - len(part) :] = part
        if differ:
            real[name] = counts[name]
    return whole, real


def _classes(splits: Mapping[str, Split], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes; if none are given, the texts among the labels in alphabetical order."""
    if isinstance(classes, (str, bytes)):
        names = [part.strip() for part in (classes if isinstance(classes, str) else classes.decode()).split(",")]
        raise UserError(f"classes = {classes!r} is one text; give a list of names: classes={names}")
    if classes is not None:
        return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in classes)
    labels = [as_array(split.labels) for split in splits.values()]
    if any(array.dtype.kind not in "USO" for array in labels):
        raise UserError("classes are missing; give their names by class index, as in classes=['no', 'yes']")
    return tuple(sorted({name for array in labels for name in _names("labels", array.reshape(-1).tolist())}))


def _labels(where: str, value: Any, classes: Sequence[str], names: Sequence[str]) -> Array:
    """Class indices of labels that are texts or True and False; others as they are, for `validate`."""
    try:
        labels = as_array(value)
    except UserError as error:
        raise UserError(f"{where}, labels: {error}") from None
    if labels.dtype == bool and len(classes) == 2:
        return labels.astype(np.int64)
    if labels.dtype.kind not in "USO" or labels.ndim != 1:
        return labels
    if labels.dtype == object and not any(isinstance(label, (str, bytes)) for label in labels):
        whole = all(isinstance(label, (int, np.integer)) and not isinstance(label, bool) for label in labels)
        return labels.astype(np.int64) if whole else labels
    index = {name: number for number, name in enumerate(classes)}
    texts = _names(f"{where}, labels", labels.tolist())
    for number, text in enumerate(texts):
        if text not in index:
            sample = names[number] if number < len(names) else number
            choose(f"label of sample {sample!r} in {where}:", str(text), map(str, classes))
    return np.array([index[text] for text in texts], np.int64)


def _names(where: str, values: Any) -> list[str]:
    """Texts of names that are texts, bytes or whole numbers; others as they are, for `validate`."""
    if isinstance(values, (str, bytes)):
        raise UserError(f"{where}: {values!r} is one text; give a list with one for each sample")
    return [_name(where, value) for value in (as_array(values).tolist() if hasattr(values, "dtype") else list(values))]


def _name(where: str, value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UserError(f"{where}: {value!r} is not UTF-8; convert it with .decode('latin1')") from None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    return str(value) if isinstance(value, str) else value
