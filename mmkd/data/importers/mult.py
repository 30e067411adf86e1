"""Import pickles of MulT (`mosei_senti_data_noalign.pkl`, `mosi_data.pkl`) and of MultiBench (`mosi_raw.pkl`).

Both are a dict of train, valid and test, each with `vision (N, T, F)`, `audio`, `text`, `labels` and perhaps `id`,
padded in front. Sizes are taken as they come: several editions exist. Labels are scores `(N, 1, 1)`, values `(N, 1)`,
or, of IEMOCAP, `(N, 4, 2)`: for each emotion no and yes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.data.dataset import Array, Split
from mmkd.data.importers.importing import DEFAULT, Facts, Options, with_labels, write_import
from mmkd.data.importers.meanings import EMOTIONS, KNOWN, Known, check_meaning
from mmkd.data.importers.pickles import MODALITIES, load_splits, take_ids, take_numbers, take_sequences
from mmkd.errors import UserError, choose

KEYS = (*MODALITIES.values(), "labels")
MULT = ("mosei", "mosi", "iemocap")
MULTIBENCH = ("mosi", "mosei", "humor", "sarcasm")


def import_mult(
    pickle: str | Path, out: str | Path, dataset: str, *, emotion: str | None = None, options: Options = DEFAULT
) -> str:
    """Write MulT's `pickle` to `out` in the HDF5 layout; return the fingerprint.

    The class of a score is the nearest whole number, halves to even. Groups are the videos in the ids (for IEMOCAP the
    speakers), if all ids tell them.

    Args:
        pickle: the file; no code in it is run.
        out: the file to write.
        dataset: mosei, mosi or iemocap.
        emotion: of IEMOCAP: neutral, happy, sad or angry, a yes or no for each sample.
        options: repairs, padding, and who hears of them.

    Raises:
        UserError: the pickle asks for more than arrays, is laid out differently, holds NaN or infinity (naming the
            sample), or its content contradicts `dataset`.
        OSError: `out` cannot be written.
    """
    choose("data set", dataset, MULT)
    if (dataset == "iemocap") != (emotion is not None):
        need = f"choose one with --emotion ({', '.join(EMOTIONS)})" if emotion is None else "leave --emotion out"
        raise UserError(f"{pickle}: IEMOCAP alone has several emotions, a task each; {need}")
    if emotion is not None:
        choose("emotion", emotion, EMOTIONS)
    return _import(Path(pickle), out, dataset, emotion, "MulT", options)


def import_multibench(pickle: str | Path, out: str | Path, dataset: str, *, options: Options = DEFAULT) -> str:
    """Write MultiBench's `pickle` to `out`, as `import_mult`; `dataset` is mosi, mosei, humor or sarcasm."""
    choose("data set", dataset, MULTIBENCH)
    return _import(Path(pickle), out, dataset, None, "MultiBench", options)


def _import(pickle: Path, out: str | Path, dataset: str, emotion: str | None, made_by: str, options: Options) -> str:
    parts = load_splits(pickle, KEYS, options.progress)
    labels = {n: _shaped(f"{pickle}: split {n!r}", take_numbers(f"{pickle}: split {n!r}", part, "labels"), dataset)
              for n, part in parts.items()}  # fmt: skip
    seen: Counter[str] = Counter()
    known = KNOWN[dataset]
    splits = {}
    for name, part in parts.items():
        options.progress(f"converting {name}")
        splits[name] = _split(f"{pickle}: split {name!r}", name, part, len(labels[name]), seen)
    train = splits["train"].arrays
    widths = {key: train[modality].shape[2] for modality, key in MODALITIES.items()}
    check_meaning(str(pickle), dataset, labels, widths)
    splits = {n: _labelled(f"{pickle}: split {n!r}", s, labels[n], known, emotion, options) for n, s in splits.items()}
    if not all(group for split in splits.values() for group in split.groups or [""]):
        splits = {name: replace(split, groups=[]) for name, split in splits.items()}
    aligned = "aligned" if len({array.shape[1] for array in train.values()}) == 1 else "unaligned"
    options.report(f"{known.name}, {aligned}: " + ", ".join(f"{m} {a.shape[1:]}" for m, a in train.items()))
    classes = known.classes if emotion is None else (f"not {emotion}", emotion)
    task = f", {emotion}" if emotion else ""
    facts = Facts(classes, f"{known.name}, {made_by}'s pickle ({aligned}){task}", known.license, known.score_range)
    return write_import(out, splits, facts, [f"from {pickle.name}", *_rule(known)], options, "front")


def _rule(known: Known) -> list[str]:
    if known.score_range is None:
        return []
    return ["class = the nearest of {} scores from {:g} to {:g}".format(len(known.classes), *known.score_range)]


def _split(where: str, name: str, part: dict[str, Any], samples: int, seen: Counter[str]) -> Split:
    """Arrays, ids and groups; labels follow."""
    ids, videos = take_ids(where, part, samples, seen)
    names = ids or [f"{name}-{n}" for n in range(samples)]
    arrays = {modality: take_sequences(where, part, key, names) for modality, key in MODALITIES.items()}
    return Split(arrays=arrays, labels=np.zeros(samples, np.int64), ids=names, groups=videos)


def _shaped(where: str, labels: Array, dataset: str) -> Array:
    """Labels (N,), or of IEMOCAP (N, 4, 2)."""
    if dataset == "iemocap":
        if labels.ndim != 3 or labels.shape[1:] != (4, 2):
            raise UserError(
                f"{where}: stated is IEMOCAP (--dataset iemocap), but 'labels' have the shape {labels.shape}, not "
                f"(N, 4, 2): no and yes for each of {', '.join(EMOTIONS)}"
            )
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(2) == 1).all()):
            raise UserError(f"{where}: 'labels' are not one-hot: one of no and yes is 1, the other 0")
        return labels
    if labels.ndim == 3 and labels.shape[1:] == (4, 2):
        raise UserError(
            f"{where}: stated is {KNOWN[dataset].name} (--dataset {dataset}), but 'labels' have the shape "
            f"{labels.shape}; if it is IEMOCAP, use --dataset iemocap"
        )
    if labels.ndim == 0 or labels.size != len(labels) or not labels.size:
        raise UserError(f"{where}: 'labels' have the shape {labels.shape}, not (N, 1, 1)")
    return labels.reshape(-1)


def _labelled(where: str, split: Split, labels: Array, known: Known, emotion: str | None, options: Options) -> Split:
    """`split` with its labels, and its scores where the labels are these."""
    if emotion is not None:
        return replace(split, labels=labels[:, EMOTIONS.index(emotion), 1].astype(np.int64))
    return with_labels(where, split, labels, known, options)
