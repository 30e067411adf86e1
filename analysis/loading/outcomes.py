"""Test samples of a finished run and what it predicted for them, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from analysis.loading.runs import Runs
from mmkd.config import digest
from mmkd.result_file import read_predictions
from mmkd.rundir import TrialDir


@dataclass(frozen=True)
class Outcome:
    """Test samples of a run: ids, groups (empty if the data have none), labels and predictions (N,), and the number of
    classes."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    classes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """A mask of the samples that the run got right."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def samples(self) -> str:
        """A hash of ids and labels, in their order: equal for runs that were tested on the same samples."""
        return digest([self.ids, self.labels.tolist()])


def outcome(runs: Runs, directory: str) -> Outcome:
    """The outcome of a finished run on test.

    Raises:
        FileNotFoundError, ResultError: see `mmkd.result_file.read_predictions`.
    """
    kept = _read.setdefault(runs, {})
    if directory not in kept:
        test = read_predictions(TrialDir(runs.root / directory).result, "test")
        predicted = test.logits.argmax(axis=1)
        kept[directory] = Outcome(tuple(test.ids), tuple(test.groups), test.labels, predicted, test.logits.shape[1])
    return kept[directory]


_read: WeakKeyDictionary[Runs, dict[str, Outcome]] = WeakKeyDictionary()
