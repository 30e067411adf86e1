"""Check that a student computes what its trial stored: the logits in result.h5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mmkd.data import read_split
from mmkd.errors import UserError
from mmkd.result_file import ResultError, read_result
from mmkd.training.evaluation import EVALUATION_BATCH
from mmkd.training.trained_network import TrainedStudent

Model = Callable[[Tensor, Tensor], Tensor]
"""Raw features (B, T, F) and lengths (B,) to logits (B, C)."""

TOLERANCE, GPU_TOLERANCE = 1e-4, 5e-2
"""Largest difference of a logit, as a share of the largest one (at least 1), for trials that ran on a CPU and on a GPU.

Another CPU sums in another order; a GPU's convolutions round to TF32, with 10 bits. Wrong padding differs by far more.
"""


@torch.no_grad()
def compute_logits(model: Model, features: Tensor, lengths: Tensor, tell: Callable[[str], object]) -> Tensor:
    """Logits (N, C) of raw features (N, T, F) with lengths (N,), in batches."""
    logits = []
    for start in range(0, len(features), EVALUATION_BATCH):
        tell(f"predicting samples from {start:,} of {len(features):,} on")
        part = slice(start, start + EVALUATION_BATCH)
        logits.append(model(features[part], lengths[part]))
    return torch.cat(logits)


def check_logits(
    student: TrainedStudent, model: Model, what: str, tell: Callable[[str], object] = lambda what: None
) -> str:
    """Compare the logits of `model` with those that the trial stored, on the same recordings; tell how they agree.

    The recordings are those of the test part, or of the validation part if the trial did not predict the test part.

    Args:
        student: the trial's student.
        model: what is to be checked: the student itself, or an exported one.
        what: its name for the message.
        tell: called with each next step.

    Raises:
        UserError: the result cannot be read, or a logit differs.
    """
    try:
        predictions = read_result(student.directory.result).predictions
    except (FileNotFoundError, ResultError) as error:
        raise UserError(f"{student.directory.path}: {error}") from None
    split = "test" if "test" in predictions else "valid"
    stored, primary = predictions[split], student.config.primary
    data = read_split(student.info, split, [primary], standardise=False)
    if data.ids != stored.ids:
        raise UserError(
            f"{student.directory.result}: the {split} samples are not those of {student.info.path}; use the data "
            f"file that the trial was run on"
        )
    arrays = torch.from_numpy(data.arrays[primary]), torch.from_numpy(data.lengths[primary])
    tell(f"comparing {what} with the stored logits")
    logits = compute_logits(model, *arrays, tell).numpy()
    difference = np.abs(logits - stored.logits).max(axis=1)
    allowed = TOLERANCE if student.result.device == "cpu" else GPU_TOLERANCE
    if not difference.max() <= allowed * max(1.0, float(np.abs(stored.logits).max())):
        worst = int(difference.argmax())
        changed = int((logits.argmax(1) != stored.logits.argmax(1)).sum())
        raise UserError(
            f"nothing written: {what} does not compute the logits in {student.directory.result}; they differ by up "
            f"to {difference[worst]:.1e} ({split} sample {stored.ids[worst]!r}), which changes {changed} of "
            f"{len(logits)} predictions; use the version of mmkd that ran the trial, or report a bug"
        )
    return f"{len(logits)} stored {split} logits reproduced within {difference.max():.1e}"
