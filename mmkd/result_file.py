"""Read and write a trial's result file (HDF5); check results and weights, and set damaged ones aside."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkd.checksum import Damaged, checksum_line, has_checksum, verify_checksum
from mmkd.files import remove_leftovers, write_atomically
from mmkd.rundir import TrialDir
from mmkd.stored_text import fixed, fixed_column, read_attribute, read_attributes

RESULT_VERSION = 3
"""The only version that is read: it ends in its checksum and holds text of a fixed length."""


class Status(StrEnum):
    """The outcome of a finished trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"


class ResultError(Exception):
    """A result file that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Predictions:
    """One split's outputs: logits (N, C) float32, labels (N,), sample ids, scores (N,) where the labels are scores.

    `groups` are the samples' groups; empty if the data file has none.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: list[str]
    scores: NDArray[np.float32] | None = None
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """The result of a finished trial.

    `metrics` and `predictions` are of the epoch of lowest validation loss, by split; `curves` has one value per
    epoch; `reason` tells why a trial was pruned or at which epoch and loss term it diverged; `seconds` were spent
    training and evaluating, summed over attempts up to each one's last checkpoint. `standardisation` is the mean and
    std (F_m,) of each input modality, with which raw features are standardised for the weights.
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
    """Write `result` to the trial's result file by rename, with a checksum."""
    # Through memory: HDF5 would report a full disk late, and not in the system's words.
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
            if predictions.groups:
                group["groups"] = fixed_column(predictions.groups)
    stored = content.getvalue() + checksum_line(content.getbuffer())
    write_atomically(directory.result, lambda path: path.write_bytes(stored))


def read_result(path: Path, *, predictions: bool = True, curves: bool = True) -> Result:
    """Read the result in `path`, with or without its largest parts.

    Raises:
        FileNotFoundError: there is none.
        ResultError: it is truncated, changed in a single bit, foreign, or of another version.
    """
    with _opened(path, check=True) as file:
        facts = read_attributes(file)
        return Result(
            status=Status(facts["status"]),
            config=json.loads(facts["config"]),
            metrics=_read_metrics(file),
            curves=_read_curves(file) if curves else {},
            predictions={
                split: _read_predictions(group)
                for split, group in (file.get("predictions", {}) if predictions else {}).items()
            },
            standardisation={m: tuple(pair[()]) for m, pair in file.get("standardisation", {}).items()},
            **{name: facts[name] for name in _SCALARS},
        )


def read_predictions(path: Path, split: str) -> Predictions:
    """Read the predictions of one split alone; raises as `read_result` does, and ResultError if there are none."""
    with _opened(path, check=True) as file:
        return _read_predictions(file["predictions"][split])


def _read_predictions(group: h5py.Group) -> Predictions:
    return Predictions(
        logits=group["logits"][()],
        labels=group["labels"][()],
        ids=group["ids"].asstr()[()].tolist(),
        scores=group["scores"][()] if "scores" in group else None,
        groups=group["groups"].asstr()[()].tolist() if "groups" in group else [],
    )


def read_summary(path: Path) -> Result:
    """Read status, epochs, seconds and metrics alone, in a tenth of `read_result`'s time; raises as it does.

    Ignores the checksum, which would need the whole file.
    """
    with _opened(path, check=False) as file:
        epochs, seconds = int(_scalar(file, "epochs")), float(_scalar(file, "seconds"))
        return Result(Status(_scalar(file, "status")), {}, epochs=epochs, seconds=seconds, metrics=_read_metrics(file))


def check_result(path: Path) -> None:
    """Verify the checksum of the result in `path`, mostly without parsing it; raises as `read_result` does."""
    try:
        verified = path.is_file() and _verify(path)
    except (OSError, Damaged) as error:
        raise ResultError(f"{path}: not a readable result ({error})") from None
    if not verified:
        read_result(path)  # raises, and says which of all reasons it is


@contextmanager
def _opened(path: Path, *, check: bool) -> Iterator[h5py.File]:
    """Open the result file in `path`; turn every error of reading it into a ResultError.

    Verify its checksum first if `check`: HDF5's own code, in C, is not made for damaged files.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        verified = check and _verify(path)
        with h5py.File(path, "r", locking=False) as file:
            _check_version(path, int(_scalar(file, "result_version")))
            if check and not verified:
                raise Damaged("it does not end in its checksum")
            yield file
    except ResultError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise ResultError(f"{path}: not a readable result ({error})") from None


def _check_version(path: Path, version: int) -> None:
    if version == RESULT_VERSION:
        return
    newer = version > RESULT_VERSION
    age = "newer" if newer else "older"
    remedy = "update mmkd" if newer else "remove the file and launch again to repeat the trial"
    raise ResultError(f"{path}: result version {version} is {age} than this mmkd reads ({RESULT_VERSION}); {remedy}")


def _verify(path: Path) -> bool:
    """True if the file ends in its checksum, False if in none.

    Raises:
        Damaged: the checksum is not that of the content.
    """
    stored = path.read_bytes()
    if not has_checksum(stored):
        return False
    verify_checksum(stored)
    return True


def _read_metrics(file: h5py.File) -> dict[str, dict[str, float]]:
    """Metrics by split."""
    return {
        split: {name: float(value) for name, value in read_attributes(group).items()}
        for split, group in file.get("metrics", {}).items()
    }


def _read_curves(file: h5py.File) -> dict[str, list[float]]:
    """Curves by name, through h5py's lower level: its objects would take twice the time of reading them."""
    if "curves" not in file:
        return {}
    group, curves = file["curves"].id, {}
    for name in group:
        stored = h5py.h5d.open(group, name)
        if stored.shape is None:
            raise ValueError(f"curve {name.decode()} has no values")
        values = np.empty(stored.shape, np.float64)
        stored.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        curves[name.decode()] = values.tolist()
    return curves


def _scalar(file: h5py.File, name: str) -> Any:
    """An attribute of the file as a plain Python value."""
    value = read_attribute(file, name)
    return value.item() if isinstance(value, np.generic) else value


SET_ASIDE = "result.h5.unreadable"
"""New name of a damaged result, when its trial runs again."""


def clean_up(directory: TrialDir) -> None:
    """Remove what killed processes left in a settled trial's directory: nothing writes there any more."""
    remove_leftovers(directory.path)
    remove_leftovers(directory.attempts)
    directory.lock.unlink(missing_ok=True)
    if directory.result.exists():
        directory.checkpoint.unlink(missing_ok=True)


def usable_result(directory: TrialDir) -> Result | None:
    """The result of a trial, without predictions and curves; a damaged one is set aside, and the trial runs again."""
    try:
        return read_result(directory.result, predictions=False, curves=False)
    except FileNotFoundError:
        return None
    except ResultError as error:
        set_aside(directory, str(error))
        return None


def set_aside(directory: TrialDir, why: str) -> None:
    """Rename a damaged result, so that its trial runs again."""
    with suppress(FileNotFoundError):  # another controller, that shares this teacher, was faster
        os.replace(directory.result, directory.path / SET_ASIDE)
    print(f"warning: {why}; set aside, the trial runs again")


def has_lost_result(directory: TrialDir, *, had: bool) -> bool:
    """True if a trial that `had` a result has none now, or any trial a damaged one, which is set aside.

    Only the bytes are read: a relaunch checks every trial of a row.
    """
    try:
        check_result(directory.result)
    except FileNotFoundError:
        return had
    except ResultError as error:
        set_aside(directory, str(error))
        return True
    return False


def weights_checksum(directory: TrialDir) -> str:
    """SHA-256 of a trial's weights, as its result names them."""
    with directory.weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_its_weights(directory: TrialDir, result: Result) -> bool:
    """True if a trial's weights are those that its result names."""
    try:
        return weights_checksum(directory) == result.weights_sha256
    except FileNotFoundError:
        return not result.weights_sha256  # it diverged before its first epoch
