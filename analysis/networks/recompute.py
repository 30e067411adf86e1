"""Evaluate stored weights again and compare their outputs with the stored ones: `doctor --recompute`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from analysis.checks.finding import Finding
from mmkd.data.tensors import Samples, load_samples
from mmkd.errors import UserError
from mmkd.result_file import Predictions, ResultError, read_result
from mmkd.rundir import TrialDir
from mmkd.training.evaluation import evaluate
from mmkd.training.trained_network import TrainedNetwork, load_network

TOLERANCE = 0.01
"""Of logits, relative to the largest: other devices and versions differ by less."""


def wrong_outputs(root: Path, directories: Iterable[str], tell: Callable[[str], object]) -> Iterator[Finding]:
    """Findings about completed runs whose weights do not give the outputs that their result stores.

    Reads each run's data set, which has to be where the configuration says, and evaluates on the CPU. An edited result
    is found even if its metrics, predictions and checksum agree with each other.
    """
    known: dict[tuple[object, ...], Samples] = {}
    for directory in directories:
        tell(f"evaluating {directory}")
        try:
            trained = load_network(root / directory)
            stored = read_result(TrialDir(root / directory).result).predictions
            problems = [problem for split in stored for problem in _compare(trained, split, stored[split], known)]
        except (UserError, ResultError, OSError) as error:
            yield Finding("recompute", f"{directory}: not evaluated again: {error}".replace(f"{root}/", ""))
            continue
        for problem in problems:
            yield Finding("recompute", f"{directory}: {problem}")


def _compare(
    trained: TrainedNetwork, split: str, stored: Predictions, known: dict[tuple[object, ...], Samples]
) -> Iterator[str]:
    config = trained.config
    key = (config.data.fingerprint, config.split and config.split.digest, split, trained.inputs)
    if key not in known:
        known[key] = load_samples(trained.info, split, trained.inputs, torch.device("cpu"))
    _, again = evaluate(trained.network, known[key], trained.info)
    if again.ids != stored.ids or not np.array_equal(again.labels, stored.labels):
        yield f"its {split} samples or labels are not those of the data set"
        return
    away = np.abs(again.logits - stored.logits).max(axis=1) > TOLERANCE * (1 + np.abs(again.logits).max())
    if away.any():
        accuracies = [100 * float(np.mean(one.logits.argmax(1) == one.labels)) for one in (stored, again)]
        yield (
            f"its weights give other outputs for {int(away.sum())} of {len(away)} {split} samples: accuracy "
            f"{accuracies[0]:.1f} % as stored, {accuracies[1]:.1f} % as evaluated"
        )
