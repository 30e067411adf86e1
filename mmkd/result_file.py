"""Read and write a trial's result file (HDF5)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkd.checksum import Damaged, has_seal, seal_of, unseal
from mmkd.files import write_atomically
from mmkd.rundir import TrialDir
from mmkd.stored_text import fixed, fixed_column, plain_text

RESULT_VERSION = 3
"""2 ends in a seal (`mmkd.checksum`), 3 has text of a fixed length (`mmkd.stored_text`); 1 and 2 are read too."""


class Status(StrEnum):
    """How a finished trial finished."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"


class ResultError(Exception):
    """A result file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Predictions:
    """One split's outputs: logits (N, C) float32, labels (N,), sample ids, scores (N,) where the labels are scores."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: list[str]
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Result:
    """All that a finished trial leaves behind.

    `metrics` and `predictions` are of the epoch of lowest validation loss, by split; `curves` has one value an
    epoch; `reason` says why a trial was pruned or at which epoch and loss term it diverged; `seconds` were spent
    training and evaluating, summed over attempts up to each one's last checkpoint. `standardisation` is what the
    weights expect of raw features: mean and std (F_m,) of each input modality.
    """

    status: Status
    config: Mapping[str, Any]
    reason: str = ""
    best_epoch: int = -1
    epochs: int = 0
    seconds: float = 0.0
    parameters: int = 0
    device: str = ""
    weights_sha256: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    standardisation: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)


_SCALARS = ("reason", "best_epoch", "epochs", "seconds", "parameters", "device", "weights_sha256")


def write_result(directory: TrialDir, result: Result) -> None:
    """Write `result` to the trial's result file, whole, by rename, with a checksum."""

    # Through memory: of a full disk HDF5 would say so late, and not in the system's words.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["result_version"] = RESULT_VERSION
        facts = {"status": result.status.value, "config": json.dumps(result.config)}
        facts |= {name: getattr(result, name) for name in _SCALARS}
        file.attrs.update({name: fixed(value) if isinstance(value, str) else value for name, value in facts.items()})
        for split, values in result.metrics.items():
            file.require_group(f"metrics/{split}").attrs.update(values)
        for modality, (mean, std) in result.standardisation.items():
            file[f"standardisation/{modality}"] = np.stack([mean, std])
        for name, curve in result.curves.items():
            file[f"curves/{name}"] = np.asarray(curve, np.float64)
        for split, predictions in result.predictions.items():
            group = file.create_group(f"predictions/{split}")
            group["logits"] = predictions.logits
            group["labels"] = predictions.labels
            group["ids"] = fixed_column(predictions.ids)
            if predictions.scores is not None:
                group["scores"] = predictions.scores
    sealed = content.getvalue() + seal_of(content.getbuffer())
    write_atomically(directory.result, lambda path: path.write_bytes(sealed))


@dataclass(frozen=True)
class Summary:
    """What lists of many trials show of a `Result`."""

    status: Status
    epochs: int
    seconds: float
    metrics: Mapping[str, Mapping[str, float]]


def read_result(path: Path, *, predictions: bool = True) -> Result:
    """The result in `path`; `predictions=False` leaves the largest part unread.

    Raises:
        FileNotFoundError: there is none.
        ResultError: it is truncated, changed in a single bit, foreign, or of a newer version.
    """
    with _opened(path, check=True) as file:
        return Result(
            status=Status(_plain(file.attrs["status"])),
            config=json.loads(_plain(file.attrs["config"])),
            metrics=_read_metrics(file),
            curves={name: curve[()].tolist() for name, curve in file.get("curves", {}).items()},
            predictions=_read_predictions(file) if predictions else {},
            standardisation={m: tuple(pair[()]) for m, pair in file.get("standardisation", {}).items()},
            **{name: _plain(file.attrs[name]) for name in _SCALARS},
        )


def read_summary(path: Path) -> Summary:
    """The little of the result in `path` that lists show, in a tenth of `read_result`'s time; raises as it does.

    The checksum, for which the whole file would be read, is not looked at.
    """
    with _opened(path, check=False) as file:
        attributes = file.attrs
        return Summary(
            Status(_plain(attributes["status"])),
            int(attributes["epochs"]),
            float(attributes["seconds"]),
            _read_metrics(file),
        )


def check_result(path: Path) -> None:
    """Make sure that the result in `path` is whole, mostly without parsing it; raises as `read_result` does."""
    try:
        sealed = path.is_file() and _is_sealed(path)
    except (OSError, Damaged) as error:
        raise ResultError(f"{path}: not a readable result ({error})") from None
    if not sealed:
        read_result(path)


@contextmanager
def _opened(path: Path, *, check: bool) -> Iterator[h5py.File]:
    """The result file in `path`, of a version that is known; what reading it raises becomes a ResultError.

    `check` its checksum first: HDF5's own code, in C, is not made for damaged files.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        sealed = check and _is_sealed(path)
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs["result_version"])
            if version > RESULT_VERSION:
                raise ResultError(f"{path}: result version {version} is newer than this mmkd reads ({RESULT_VERSION})")
            if check and version > 1 and not sealed:
                raise Damaged("it does not end in its checksum")
            yield file
    except ResultError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise ResultError(f"{path}: not a readable result ({error})") from None


def _is_sealed(path: Path) -> bool:
    """Whether the file ends in a seal, which is then right.

    Raises:
        Damaged: it is not.
    """
    content = path.read_bytes()
    if not has_seal(content):
        return False
    unseal(content)
    return True


def _read_metrics(file: h5py.File) -> dict[str, dict[str, float]]:
    """By split."""
    return {
        split: {name: float(value) for name, value in group.attrs.items()}
        for split, group in file.get("metrics", {}).items()
    }


def _read_predictions(file: h5py.File) -> dict[str, Predictions]:
    return {
        split: Predictions(
            logits=group["logits"][()],
            labels=group["labels"][()],
            ids=group["ids"].asstr()[()].tolist(),
            scores=group["scores"][()] if "scores" in group else None,
        )
        for split, group in file.get("predictions", {}).items()
    }


def _plain(value: Any) -> Any:
    return plain_text(value.item() if isinstance(value, np.generic) else value)
