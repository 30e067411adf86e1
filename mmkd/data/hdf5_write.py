"""Write data files in the HDF5 layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkd.data.conversion import complete
from mmkd.data.dataset import SPLITS, LabelKind, Meaning, Split, fingerprint, train_statistics
from mmkd.data.hdf5_format import LAYOUT_VERSION
from mmkd.data.padding import Padding
from mmkd.data.validation import validate
from mmkd.errors import UserError, errors_about
from mmkd.files import write_atomically
from mmkd.stored_text import fixed, fixed_column
from mmkd.terminal import one_line


def write_dataset(
    path: str | Path,
    splits: Mapping[str, Split],
    *,
    classes: Sequence[str] | None = None,
    source: str,
    license: str,
    label_kind: LabelKind = "class",
    score_range: tuple[float, float] | None = None,
    vectors: Mapping[str, int] | None = None,
    notes: str = "",
    padding: Padding | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> str:
    """Check `splits`, write them to `path` (replacing an existing file) and return the fingerprint.

    Your own arrays, in ten lines:

        import numpy as np
        from mmkd.data import Split, write_dataset

        rng, splits = np.random.default_rng(0), {}
        for name, n in {"train": 60, "valid": 20, "test": 20}.items():
            video = rng.normal(size=(n, 30, 5)).astype("float32")  # samples, steps, features; padding in front
            audio = rng.normal(size=(n, 50, 8)).astype("float32")  # another length, other features
            splits[name] = Split(arrays={"video": video, "audio": audio}, labels=rng.integers(0, 2, n))
        write_dataset("mine.h5", splits, classes=["no", "yes"], source="my recordings", license="CC BY 4.0")

    Args:
        path: the file to write; written atomically.
        splits: exactly `train`, `valid` and `test`, with equal modalities, steps and features. The order of modalities
            is train's. Lengths, ids and groups may be left out, see `Split`. What is converted: lists of arrays with
            unlike lengths, tensors, other dtypes of numbers, labels that are texts, ids that are bytes or numbers.
        classes: names, by class index. May be left out where labels are texts: then these in alphabetical order.
        source: origin of the data. Start with "synthetic" if they are made up: tables show it.
        license: the terms of the data.
        label_kind: "score" where classes are evenly spaced bins of a score; then every split has `scores`.
        score_range: for "score", the scores that the first and the last class stand for.
        vectors: modality -> consecutive features that are one vector in space (3 for xyz), if any.
        notes: how the data were prepared.
        padding: the side of the padding: "front", "behind", or "none" where every step is real. None: lengths decide;
            without lengths, leading all-zero steps are padding.
        progress: called with each next step, in words.

    Raises:
        UserError: the first rule of the layout that the data break, with split, modality and sample; or a value that
            cannot be stored exactly; or all-zero steps at the end of many samples, about which nothing is said.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: the directory {path.parent} does not exist; make it first")
    with errors_about(f"{path} not written"):
        splits, names = complete(splits, classes, padding)
    meaning = Meaning(
        modalities=tuple(splits["train"].arrays) if "train" in splits else ("none",),  # `validate` says what is missing
        classes=names,
        label_kind=label_kind,
        score_range=None if score_range is None else (float(score_range[0]), float(score_range[1])),
        vectors={modality: int(width) for modality, width in (vectors or {}).items()},
    )
    progress("checking every value")
    with errors_about(f"{path} not written"):
        validate(meaning, splits)
    progress("computing mean, standard deviation and fingerprint")
    statistics = train_statistics(splits["train"], meaning.vectors)
    digest = fingerprint(meaning, splits)

    def write(temporary: Path) -> None:
        # "v108": the oldest format refuses attributes above 64 KiB (many features or classes).
        with h5py.File(temporary, "w", libver=("v108", "latest"), locking=False) as file:
            file.attrs["mmkd_layout"] = LAYOUT_VERSION
            texts = {f.name: json.dumps(getattr(meaning, f.name)) for f in fields(Meaning)}
            texts |= {"fingerprint": digest}
            texts |= {"source": one_line(source), "license": one_line(license), "notes": one_line(notes)}
            file.attrs.update({name: fixed(text) for name, text in texts.items()})
            for name in SPLITS:
                progress(f"writing {name}")
                _write_split(file.create_group(name), splits[name])
            for modality, (mean, std) in statistics.items():
                file["train/arrays"][modality].attrs.update(mean=mean, std=std)

    write_atomically(path, write)
    return digest


def _write_split(group: Any, split: Split) -> None:
    group["labels"] = split.labels.astype(np.int64)
    group["ids"] = fixed_column(split.ids)
    if split.groups:
        group["groups"] = fixed_column(split.groups)
    if split.scores is not None:
        group["scores"] = split.scores
    for modality, array in split.arrays.items():
        group[f"arrays/{modality}"] = array
        group[f"lengths/{modality}"] = split.lengths[modality].astype(np.int64)
