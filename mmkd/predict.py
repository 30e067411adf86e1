"""`python -m mmkd.predict`: predict with a finished student on new recordings of its modality, to a CSV file."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmkd.command import Parser, add_force, run_command
from mmkd.data import SPLITS, divide, read_info, read_split
from mmkd.errors import UserError, choose
from mmkd.files import check_output, write_atomically
from mmkd.find_trial import add_trial, find_student
from mmkd.metrics import softmax
from mmkd.steps import show_steps
from mmkd.training.trained_network import TrainedStudent, load_student

BATCH = 256

EXAMPLES = """\
examples:
  %(prog)s --trial crd_attention --data utd.h5 --out predictions.csv
      the current winner of row crd_attention under ./runs on the test split of a data file, with the true classes
  %(prog)s --trial crd_attention/confirm/2 --data new.npy --out predictions.csv
      its final run of seed 2 on raw recordings (N, T, F), with zeros in front where one is shorter than T"""


def read_features(path: Path, split: str, student: TrainedStudent) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Read raw features (N, T, F), ids, and the names of the true classes ([] if unknown).

    Of the data set that the student was trained on, `split` is the part of the student's own split.

    Raises:
        UserError: the file cannot be read, or its shape is not that of the training data.
    """
    if path.suffix == ".npy":
        features, ids, truth = _read_array(path), [], []
        ids = [str(number) for number in range(len(features))]
    else:
        info = read_info(path)
        if info.fingerprint == student.config.data.fingerprint:
            info = divide(info, student.config.split)  # the file's own test part may have been trained on
        choose("modality", student.config.primary, info.modalities)
        data = read_split(info, split, [student.config.primary], standardise=False)
        features, ids = data.arrays[student.config.primary], data.ids
        truth = [info.classes[label] for label in data.labels]
    if features.shape[1:] != (student.steps, student.features):
        raise UserError(
            f"{path}: sequences of {features.shape[1]} steps and {features.shape[2]} features, "
            f"but the student takes {student.steps} and {student.features}"
        )
    if not len(features):
        raise UserError(f"{path}: holds no sample")
    if not np.isfinite(features).all():
        sample = ids[int((~np.isfinite(features)).any(axis=(1, 2)).argmax())]
        raise UserError(f"{path}: sample {sample} holds NaN or infinity")
    return features, ids, truth


def _read_array(path: Path) -> NDArray[np.float32]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # no pickles, and no more memory than the file has bytes
    except Exception as error:  # the header is Python, which numpy parses: a broken one fails in any way
        raise UserError(f"{path}: not a readable .npy file ({error})") from None
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: {array.dtype} of shape {array.shape}, not numbers in (samples, steps, features)")
    with np.errstate(over="ignore"):  # values that float32 cannot hold become infinite, and are refused as such
        return np.array(array, np.float32)


@torch.no_grad()
def predict_logits(student: TrainedStudent, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (N, C) of raw features (N, T, F)."""
    parts = torch.from_numpy(features).split(BATCH)
    logits = []
    with show_steps(len(parts)) as tell:
        for number, part in enumerate(parts):
            tell(f"predicting samples from {number * BATCH:,} of {len(features):,} on")
            logits.append(student.model(part))
    return torch.cat(logits).numpy()


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
    """Write the predictions; print the accuracy if the true classes are known."""
    check_output(options.out, f"--out {options.out}", (".csv",), force=options.force)
    student = load_student(find_student(options).path)
    features, ids, truth = read_features(options.data, options.split, student)
    logits = predict_logits(student, features)
    write_predictions(options.out, student, logits, ids, truth)
    if truth:
        right = np.mean([student.classes[k] == name for k, name in zip(logits.argmax(1), truth, strict=True)])
        print(f"accuracy {right:.4f} on {len(ids)} samples")
    print(f"wrote {options.out}")
    return 0


def main(arguments: list[str] | None = None, prog: str = "python -m mmkd.predict") -> int:
    """The command."""
    parser = Parser(
        prog=prog,
        description="Predict with a trained student that sees one modality.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trial(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="a data file (.h5) or an array (.npy)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="test",
        help="the part of a data file (default: test); of the training data, the part of the trial's own split",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="the file to write (atomically)")
    add_force(parser)
    return run_command(parser, predict, arguments)


if __name__ == "__main__":
    sys.exit(main())
