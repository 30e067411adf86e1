"""`python -m mmkd.predict`: predict with a finished student on new recordings of its modality, to a CSV file."""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmkd.command import Parser, add_force, run_command
from mmkd.data import SPLITS, divide, read_info, read_split
from mmkd.data.dataset import is_padding
from mmkd.data.padding import CHOICES, Padding, pad_in_front
from mmkd.errors import UserError, choose
from mmkd.files import check_output, write_atomically
from mmkd.find_trial import add_trial, find_student
from mmkd.metrics import softmax
from mmkd.steps import show_steps
from mmkd.training.stored_logits import check_logits, compute_logits
from mmkd.training.trained_network import TrainedStudent, load_student

EXAMPLES = """\
examples:
  %(prog)s --trial crd_attention --data utd.h5 --out predictions.csv
      the current winner of row crd_attention under ./runs on the test split of a data file, with the true classes
  %(prog)s --trial crd_attention/confirm/2 --data new.npy --out predictions.csv
      its final run of seed 2 on raw recordings (N, T, F), with zeros in front where one is shorter than T
  %(prog)s --trial crd_attention --data new.npy --lengths lengths.npy --out predictions.csv
      the same, with the number of real steps at the end of each recording, (N,), because real ones may be zero"""


@dataclass(frozen=True)
class Recordings:
    """Raw recordings: features (N, T, F), lengths (N,), ids, and the names of the true classes ([] if unknown)."""

    features: NDArray[np.float32]
    lengths: NDArray[np.int64]
    ids: list[str]
    truth: list[str]


def read_recordings(
    path: Path, split: str, lengths: Path | None, padding: Padding | None, student: TrainedStudent
) -> Recordings:
    """Read raw recordings of a data file or an array.

    Args:
        path: a data file, which stores lengths; or an array (N, T, F) in a .npy file.
        split: the part of a data file. Of the data set that the student was trained on: of the student's own split.
        lengths: for an array, a .npy file of the lengths (N,). None: leading all-zero steps are padding.
        padding: for an array, the side of the padding; None: lengths and zeros decide, see `pad_in_front`.
        student: the student that is to predict.

    Raises:
        UserError: a file cannot be read, or its shape is not that of the training data.
    """
    if path.suffix == ".npy":
        features = _read_array(path, "samples, steps, features").astype(np.float32)
        _check_shape(path, features, student)
        known = {"all": _read_lengths(lengths, features)} if lengths else {}
        ((features, real),) = pad_in_front(str(path), {"all": features}, known, padding=padding, owned=True).values()
        _check_front(path, features, real)
        read = Recordings(features, real, [str(number) for number in range(len(features))], [])
    else:
        if lengths or padding:
            given = f"--lengths {lengths}" if lengths else f"--padding {padding}"
            raise UserError(f"{given}: is for an array (.npy); {path} has its own lengths; leave it out")
        info = read_info(path)
        if info.fingerprint == student.config.data.fingerprint:
            info = divide(info, student.config.split)  # the file's own test part may have been trained on
        primary = choose("modality", student.config.primary, info.modalities)
        data = read_split(info, split, [primary], standardise=False)
        read = Recordings(
            data.arrays[primary], data.lengths[primary], data.ids, [info.classes[label] for label in data.labels]
        )
        _check_shape(path, read.features, student)
    if not np.isfinite(read.features).all():
        sample = read.ids[int((~np.isfinite(read.features)).any(axis=(1, 2)).argmax())]
        raise UserError(f"{path}: sample {sample} holds NaN or infinity")
    return read


def _check_shape(path: Path, features: NDArray[np.float32], student: TrainedStudent) -> None:
    if features.shape[1:] != (student.steps, student.features):
        raise UserError(
            f"{path}: sequences of {features.shape[1]} steps and {features.shape[2]} features, "
            f"but the student takes {student.steps} and {student.features}; put zeros in front of shorter sequences, "
            "and cut or resample longer ones, as in the training data"
        )
    if not len(features):
        raise UserError(f"{path}: holds no sample")


def _read_array(path: Path, axes: str) -> NDArray[Any]:
    """Read numbers with the named axes from a .npy file."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # no pickles, and no more memory than the file has bytes
    except Exception as error:  # the header is Python, which numpy parses: a broken one fails in any way
        raise UserError(f"{path}: not a readable .npy file ({error})") from None
    if array.ndim != len(axes.split(", ")) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: {array.dtype} of shape {array.shape}, not numbers in ({axes})")
    with np.errstate(over="ignore"):  # values that float32 cannot hold become infinite, and are refused as such
        return np.array(array, np.float32 if array.dtype.kind == "f" else None)


def _read_lengths(path: Path, features: NDArray[np.float32]) -> NDArray[np.int64]:
    lengths = _read_array(path, "samples")
    count, steps = features.shape[:2]
    if lengths.dtype.kind == "f" or lengths.shape != (count,):
        raise UserError(f"{path}: {lengths.dtype} {lengths.shape}, not whole numbers, one for each of {count} samples")
    bad = (lengths < 1) | (lengths > steps)
    if bad.any():
        first = int(bad.argmax())
        raise UserError(f"{path}: length {lengths[first]} of sample {first} is not in 1..{steps}")
    return lengths.astype(np.int64)


def _check_front(path: Path, features: NDArray[np.float32], lengths: NDArray[np.int64]) -> None:
    dirty = ((features != 0).any(2) & is_padding(lengths, features.shape[1])).any(1)
    if dirty.any():
        first = int(dirty.argmax())
        raise UserError(
            f"{path}: sample {first} has values other than 0 before its last {lengths[first]} steps, which its length "
            f"calls real; pad with zeros in front, or name the side of the padding with --padding"
        )


def write_predictions(
    path: Path, student: TrainedStudent, logits: NDArray[np.float32], ids: list[str], truth: list[str]
) -> None:
    """Write one line per sample: id, true class if known, predicted class, and each class's probability."""
    predicted = [student.classes[k] for k in logits.argmax(1)]
    rows = [["id", *(["true"] if truth else []), "predicted", *(f"p {name}" for name in student.classes)]]
    for n, probabilities in enumerate(softmax(logits)):
        rows.append([ids[n], *truth[n : n + 1], predicted[n], *(f"{p:.6g}" for p in probabilities)])

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    write_atomically(path, write)


def predict(options: argparse.Namespace) -> int:
    """Check the student, write its predictions, and print the accuracy if the true classes are known."""
    check_output(options.out, f"--out {options.out}", (".csv",), force=options.force)
    student = load_student(find_student(options).path)
    read = read_recordings(options.data, options.split, options.lengths, options.padding, student)
    arrays = torch.from_numpy(read.features), torch.from_numpy(read.lengths)
    with show_steps() as tell:
        agreement = check_logits(student, student.model, "the student", tell)
        logits = compute_logits(student.model, *arrays, tell).numpy()
    write_predictions(options.out, student, logits, read.ids, read.truth)
    if read.truth:
        right = np.mean([student.classes[k] == name for k, name in zip(logits.argmax(1), read.truth, strict=True)])
        print(f"accuracy {right:.4f} on {len(read.ids)} samples")
    print(f"wrote {options.out} ({agreement})")
    return 0


def main(arguments: list[str] | None = None, prog: str = "python -m mmkd.predict") -> int:
    """The command."""
    parser = Parser(
        prog=prog,
        description="Predict with a trained student of one modality. The predictions are written only if the student\n"
        "reproduces the logits that its trial stored.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trial(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="a data file (.h5) or an array (.npy)")
    parser.add_argument(
        "--lengths",
        type=Path,
        metavar="FILE.npy",
        help="for an array: the number of real steps at the end of each recording (default: leading all-zero steps are "
        "padding)",
    )
    parser.add_argument(
        "--padding",
        choices=CHOICES,
        help="for an array: the side of the padding; none: every step is data (default: lengths and all-zero steps "
        "decide)",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="test",
        help="the part of a data file to predict (default: test); of the trial's own data, as the trial divided them",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="the file to write (atomically)")
    add_force(parser)
    return run_command(parser, predict, arguments)


if __name__ == "__main__":
    sys.exit(main())
