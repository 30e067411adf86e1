"""Import CMU-MOSEI as MulT's authors packed it (`mosei_senti_data_noalign.pkl`).

The pickle is a dict `train|valid|test` of dicts `vision (N,500,35)`, `audio (N,500,74)`, `text (N,50,300)`,
`labels (N,1,1)` in [-3, 3] and perhaps `id`. Sizes are taken as they come: two editions of it exist.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.data.dataset import SPLITS, Array, Split, chunks
from mmkd.data.hdf5_write import write_dataset
from mmkd.data.safe_pickle import load_arrays
from mmkd.errors import UserError

MODALITIES = {"video": "vision", "audio": "audio", "language": "text"}
CLASSES = ("-3", "-2", "-1", "0", "+1", "+2", "+3")


def import_mosei(pickle: str | Path, out: str | Path) -> str:
    """Write MulT's `pickle` of CMU-MOSEI to `out` in the HDF5 layout; return the fingerprint.

    Values become float32 and -inf in audio 0; leading all-zero steps are padding. The class is the score, clipped to
    [-3, 3] and rounded half to even, plus 3. Ids of several columns are joined by `_`; repeated ones get `#2`, `#3`.
    A sample's group is the video in its id: the first column, or what stands before `$_$3` or `[3]` in a single one.
    If a sample's video is not known, the file has no groups.

    Raises:
        UserError: the pickle asks for more than arrays, is laid out differently, or holds NaN (naming the sample).
        OSError: `out` cannot be written.
    """
    data = load_arrays(pickle)
    if not isinstance(data, dict):
        raise UserError(f"{pickle}: holds a {type(data).__name__}, not a dict of train, valid and test")
    seen: Counter[str] = Counter()
    splits = {name: _split(f"{pickle}: split {name!r}", data.pop(name, None), seen) for name in SPLITS}
    if not all(video for split in splits.values() for video in split.groups or [""]):
        splits = {name: replace(split, groups=[]) for name, split in splits.items()}
    return write_dataset(
        out,
        splits,
        classes=CLASSES,
        source="CMU-MOSEI, MulT's pickle (unaligned)",
        license="CMU Multimodal SDK's terms: research use",
        label_kind="score",
        score_range=(-3.0, 3.0),
        notes=f"from {Path(pickle).name}; -inf in audio set to 0; class = round-half-even(clip(score, -3, 3)) + 3",
    )


def _split(where: str, part: Any, seen: Counter[str]) -> Split:
    if not isinstance(part, dict):
        raise UserError(f"{where} is missing or no dict; expected the layout of mosei_senti_data_noalign.pkl")
    scores = _numbers(where, part, "labels")
    if scores.size != len(scores):
        raise UserError(f"{where}: 'labels' have the shape {scores.shape}, not (N, 1, 1)")
    scores = scores.reshape(-1)
    names = _ids(where, part, len(scores))
    ids = _unique(["_".join(name) for name in names], seen)
    arrays = {modality: _numbers(where, part, key) for modality, key in MODALITIES.items()}
    for rows in chunks(arrays["audio"]):
        audio = arrays["audio"][rows]
        audio[np.isneginf(audio)] = 0.0
    if np.isnan(scores).any():
        first = int(np.isnan(scores).argmax())
        raise UserError(f"{where}, sample {ids[first] if ids else first}: label is NaN; drop the sample")
    labels = np.rint(np.clip(scores, -3, 3)).astype(np.int64) + 3  # rint rounds half to even
    return Split(arrays=arrays, labels=labels, scores=scores, ids=ids, groups=[_video(name) for name in names])


def _numbers(where: str, part: dict[Any, Any], key: str) -> Array:
    """Take `part[key]` out of `part`, so that its float64 copy can be freed, as writable float32."""
    value = part.pop(key, None)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise UserError(f"{where}: {key!r} is missing or no array of numbers")
    return np.require(np.asarray(value), np.float32, "W")


def _ids(where: str, part: dict[Any, Any], samples: int) -> list[list[str]]:
    """The columns of each sample's id; empty if the pickle has no ids."""
    if part.get("id") is None:
        return []
    try:
        rows = np.asarray(part["id"], object).reshape(samples, -1).tolist()
    except ValueError as error:
        raise UserError(f"{where}: 'id' does not hold one id for each of {samples} labels ({error})") from error
    return [[v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in row] for row in rows]


def _video(name: list[str]) -> str:
    """The video in a sample's id; "" if the id does not tell."""
    if len(name) > 1:
        return name[0]
    match = re.fullmatch(r"(.+?)(?:\$_\$\d+|\[\d+\])", name[0])
    return match[1] if match else ""


def _unique(ids: list[str], seen: Counter[str]) -> list[str]:
    """`ids` with the second of equal names over all splits renamed to `name#2`, and so on; counts in `seen`."""
    unique = []
    for name in ids:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
