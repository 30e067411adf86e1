"""Import pickles of MMSA (`unaligned_50.pkl`, `aligned_50.pkl` of MOSI, MOSEI and CH-SIMS).

A dict of train, valid and test, each with `vision (N, T, F)`, `audio`, `text`, `regression_labels (N,)`, `id`
(`video$_$clip`), and where sequences are not aligned `audio_lengths` and `vision_lengths`; padded behind. `raw_text`,
`text_bert` (tokens), `annotations` and `classification_labels` are not used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmkd.data.dataset import Array, Split, edge_zeros
from mmkd.data.importers.importing import DEFAULT, Facts, Options, some, with_labels, write_import
from mmkd.data.importers.meanings import KNOWN, check_meaning
from mmkd.data.importers.pickles import MODALITIES, load_splits, take_ids, take_numbers, take_sequences
from mmkd.data.padding import Side, pad_in_front
from mmkd.errors import UserError, choose
from mmkd.formatting import count

LABELS = "regression_labels"
MMSA = ("mosi", "mosei", "sims")
WIDTHS = {"bert": (768, 1024), "glove": (300,)}
"""Features of a text -> what they are."""

Text = Literal["bert", "glove"]


def import_mmsa(
    pickle: str | Path, out: str | Path, dataset: str, *, text: Text | None = None, options: Options = DEFAULT
) -> str:
    """Write MMSA's `pickle` to `out` in the HDF5 layout; return the fingerprint.

    Lengths are those of the file; without them (text, and aligned files, whose modalities share theirs), the all-zero
    steps behind are padding. Groups are the videos in the ids.

    Args:
        pickle: the file; no code in it is run.
        out: the file to write.
        dataset: mosi, mosei or sims.
        text: what the text features must be; None: as they come.
        options: repairs, padding, and who hears of them.

    Raises:
        UserError: the pickle asks for more than arrays, is laid out differently, holds NaN or infinity (naming the
            sample), or its content contradicts `dataset` or `text`.
        OSError: `out` cannot be written.
    """
    pickle, known = Path(pickle), KNOWN[choose("data set", dataset, MMSA)]
    parts = load_splits(pickle, (*MODALITIES.values(), LABELS), options.progress)
    values = {name: take_numbers(f"{pickle}: split {name!r}", part, LABELS).reshape(-1) for name, part in parts.items()}
    seen: Counter[str] = Counter()
    splits = {}
    for name, part in parts.items():
        options.progress(f"converting {name}")
        splits[name] = _split(f"{pickle}: split {name!r}", name, part, len(values[name]), seen, options)
    train = splits["train"].arrays
    widths = {key: train[modality].shape[2] for modality, key in MODALITIES.items()}
    check_meaning(str(pickle), dataset, values, widths)
    kind = _check_text(pickle, text, widths["text"])
    aligned = len({array.shape[1] for array in train.values()}) == 1
    if aligned and not any(split.lengths for split in splits.values()):
        splits = _share_lengths(splits, options)
    splits = {n: with_labels(f"{pickle}: split {n!r}", s, values[n], known, options) for n, s in splits.items()}
    if not all(group for split in splits.values() for group in split.groups or [""]):
        splits = {name: replace(split, groups=[]) for name, split in splits.items()}
    how = "aligned" if aligned else "unaligned"
    options.report(f"{known.name}, {how}, {kind}: " + ", ".join(f"{m} {a.shape[1:]}" for m, a in train.items()))
    facts = Facts(known.classes, f"{known.name}, MMSA's pickle ({how}, {kind})", known.license, known.score_range)
    return write_import(out, splits, facts, [f"from {pickle.name}"], options, "behind")


def _split(where: str, name: str, part: dict[str, Any], samples: int, seen: Counter[str], options: Options) -> Split:
    ids, videos = take_ids(where, part, samples, seen)
    names = ids or [f"{name}-{n}" for n in range(samples)]
    arrays = {modality: take_sequences(where, part, key, names) for modality, key in MODALITIES.items()}
    lengths = {}
    for modality, key in MODALITIES.items():
        if f"{key}_lengths" in part:
            found = take_numbers(where, part, f"{key}_lengths").reshape(-1)
            lengths[modality] = _lengths(where, f"{key}_lengths", found, arrays[modality].shape[1], names, options)
    return Split(arrays=arrays, labels=np.zeros(samples, np.int64), lengths=lengths, ids=names, groups=videos)


def _lengths(where: str, key: str, found: Array, steps: int, names: list[str], options: Options) -> Array:
    """Lengths from 1 to `steps`: MMSA counts the steps that it cut off, and 0 for a modality that is missing."""
    if len(found) != len(names):
        raise UserError(f"{where}: {key!r} has {len(found)} lengths for {len(names)} samples")
    bad = ~((found >= 0) & (found == np.floor(found)))
    if bad.any():
        first = int(bad.argmax())
        raise UserError(f"{where}, sample {names[first]}: {key!r} is {found[first]:g}, not a number of steps")
    longer = np.flatnonzero(found > steps)
    if len(longer):
        options.report(
            f"{where}: {key} of {count(len(longer), 'sample')} count more than the {steps} steps that are there; all "
            f"steps are taken for real: {some([names[n] for n in longer])}"
        )
    lengths: Array = np.clip(found, 1, steps).astype(np.int64)
    return lengths


def _check_text(pickle: Path, text: Text | None, width: int) -> str:
    """The kind of the text features, in words; refused if another is stated."""
    if text is not None and width not in WIDTHS[text]:
        wanted = " or ".join(map(str, WIDTHS[text]))
        raise UserError(f"{pickle}: stated is --text {text} ({wanted} features), but 'text' has {width} features")
    found = next((name for name, widths in WIDTHS.items() if width in widths), None)
    return {"bert": "BERT", "glove": "GloVe"}.get(found or "", f"{width} text features")


def _share_lengths(splits: dict[str, Split], options: Options) -> dict[str, Split]:
    """Give the modalities of an aligned file one length: a step is padding where all of them are zero."""
    joint = {}
    for name, split in splits.items():
        zeros = [edge_zeros(array) for array in split.arrays.values()]
        leading, trailing = (np.minimum.reduce([each[side] for each in zeros]) for side in (0, 1))
        # An array of one feature with the same zeros at its ends stands for all modalities.
        steps = np.arange(next(iter(split.arrays.values())).shape[1])
        used = (steps >= leading[:, None]) & (steps < len(steps) - trailing[:, None])
        joint[name] = used[..., None].astype(np.float32)
    side: Side = "behind"
    settled = pad_in_front("all modalities", joint, {}, padding=options.padding, usual=side)
    return {
        name: replace(split, lengths={modality: settled[name][1].copy() for modality in split.arrays})
        for name, split in splits.items()
    }
