"""What the methods share that compare attention maps of student and teacher cell by cell."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from mmkd.distillation.base import Batch, DistillationMethod, FrozenTeacher, Problem
from mmkd.models.attention import Taps, attention_map
from mmkd.models.network import Outputs


class MapMethod(DistillationMethod):
    """A loss between rows of the maps of the distilled stacks, averaged over rows, layers and pairs (Eq. 12).

    A map is the mean over heads of each head's softmax at temperature t (Eqs. 10 and 11, A.1); the networks' own
    forward passes keep t = 1. Stacks of unlike depth are compared in their first layers, as many as both have.
    A key that either network's mask hides from a query is left out of both maps.
    """

    levels = ("attention_maps",)

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.teacher is not None
        self.names = problem.pairing.distilled
        networks = (problem.student, problem.teacher)
        self.masked = {name for name in self.names if any(network.stack(name).masked for network in networks)}

    @abstractmethod
    def row_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Losses (B, Tq) between the rows of two maps (B, Tq, Tk)."""

    def taps(self) -> dict[str, Taps]:
        """The scores of all distilled stacks."""
        return {name: Taps(scores=True) for name in self.names}

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD (Eq. 12, and its mean over pairs)."""
        assert teacher is not None
        tapped = teacher.tap(batch.x, student.taps)
        pairs = []
        for name in self.names:
            # Not strict: one of the two stacks may be deeper.
            layers = zip(student.tapped[name].scores, tapped[name].scores, strict=False)
            losses = [self.row_loss(*self.maps(name, ours, theirs)).mean() for ours, theirs in layers]
            pairs.append(torch.stack(losses).mean())
        return torch.stack(pairs).mean()

    def maps(self, name: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's map (B, Tq, Tk) of one layer, of their scores (B, heads, Tq, Tk)."""
        if name in self.masked:
            # A mask is the same for all samples and heads. The first key is visible to every query.
            hidden = ours[:1, :1].isneginf() | theirs[:1, :1].isneginf()
            ours, theirs = ours.masked_fill(hidden, -math.inf), theirs.masked_fill(hidden, -math.inf)
        t = self.problem.config.temperature
        return attention_map(ours, t), attention_map(theirs, t)


def safe_log(p: Tensor) -> Tensor:
    """log p, where p is 0 (a hidden key, an underflow at a low temperature) that of the least normal number.

    So 0 log 0 is 0, and gradients stay finite.
    """
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
