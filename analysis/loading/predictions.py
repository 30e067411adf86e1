"""Stored predictions of trials, sample by sample, as a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmkd.metrics import softmax
from mmkd.result_file import Predictions, read_result
from mmkd.rundir import TrialDir


def predictions(directory: Path) -> Mapping[str, Predictions]:
    """The stored predictions of a finished trial, by split.

    Raises:
        FileNotFoundError, ResultError: see `mmkd.result_file.read_result`.
    """
    return read_result(TrialDir(directory).result).predictions


def predictions_of(root: Path, directories: Sequence[str]) -> pd.DataFrame:
    """One line per trial, split and sample: `directory`, `split`, `sample` (its id), `label`, `predicted`, `correct`.

    `group` is the sample's (subject, speaker, video), missing where the data have none. `probability` is the softmax of
    the predicted class, `nll` minus the logarithm of the label's (nats); `score` is there where the labels are scores.
    Classes are numbered as in row.json's `classes`.

    Raises:
        FileNotFoundError, ResultError: a directory is not a finished trial's.
    """
    parts = [part for directory in directories for part in _lines(directory, predictions(root / directory))]
    if not parts:
        parts = [_line_frame("", "", Predictions(np.zeros((0, 1), np.float32), np.zeros(0, np.int64), []))]
    made = pd.concat(parts, ignore_index=True)
    return made.astype(dict.fromkeys(("directory", "split", "sample", "group"), "string"))


def _lines(directory: str, stored: Mapping[str, Predictions]) -> Iterator[pd.DataFrame]:
    for split, outputs in stored.items():
        yield _line_frame(directory, split, outputs)


def _line_frame(directory: str, split: str, outputs: Predictions) -> pd.DataFrame:
    predicted = outputs.logits.argmax(axis=1)
    probabilities = softmax(outputs.logits)
    samples = np.arange(len(predicted))
    lines = pd.DataFrame(
        {
            "directory": directory,
            "split": split,
            "sample": outputs.ids,
            "group": outputs.groups or None,
            "label": outputs.labels,
            "predicted": predicted,
            "correct": predicted == outputs.labels,
            "probability": probabilities[samples, predicted],
            "nll": -np.log(probabilities[samples, outputs.labels]),
        }
    )
    return lines if outputs.scores is None else lines.assign(score=outputs.scores)
