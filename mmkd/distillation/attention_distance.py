"""Distances between the attention maps of student and teacher other than EDAM's cross-entropy."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation._maps import MapMethod, safe_log
from mmkd.distillation.base import Problem
from mmkd.schema import Frozen


class AttentionDistanceSettings(Frozen):
    """`distance` is a key of `DISTANCES`."""

    distance: Literal["js", "mse", "cosine"] = "js"


def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats (at most log 2) of rows, (..., n) and (..., n) to (...)."""
    middle = safe_log((a + b) / 2)
    return (a * (safe_log(a) - middle) + b * (safe_log(b) - middle)).sum(-1) / 2


def mean_squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (n a - n b)^2 over the n columns of rows, (..., n) and (..., n) to (...): 0 to 2 n.

    A row sums to 1, so its entries are about 1 / n, and the plain mean would be about 1 / n^2 of this with a gradient
    too small to count beside that of the classification loss. n a is the row in units of uniform attention.
    """
    return a.shape[-1] * (a - b).square().sum(-1)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of rows, (..., n) and (..., n) to (...): 0 to 1."""
    return 1 - F.cosine_similarity(a, b, dim=-1)


DISTANCES = {"js": jensen_shannon, "mse": mean_squared_error, "cosine": cosine_distance}


class Method(MapMethod):
    """A distance between rows of maps, with a temperature in each head's softmax as in EDAM (Eq. 11).

    All three are of one scale whatever the number of keys: where rows are nearly uniform and differ by d, the gradient
    in a row's scores at t = 1 (averaged over heads) is d / 4 for `js`, 2 d for `mse`, d for `cosine`, and d for EDAM
    with the teacher as target. So one range of beta serves all. A temperature divides all of them by about t^2.
    """

    Settings = AttentionDistanceSettings

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        settings = AttentionDistanceSettings.model_validate(problem.config.settings)
        self.distance = DISTANCES[settings.distance]

    def row_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance that `distance` names."""
        return self.distance(student, teacher)
