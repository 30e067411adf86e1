"""Base class of the methods that compare attention maps of student and teacher cell by cell."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mmkd.distillation._tiles import tiled_sum
from mmkd.distillation.base import DistillationMethod, Problem
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.attention import Taps, attention_map
from mmkd.models.network import Outputs
from mmkd.models.scores import Scores


class MapMethod(DistillationMethod):
    """A loss between rows of the maps of the distilled stacks, averaged over rows, layers and pairs (Eq. 12).

    A map is the mean over heads of each head's softmax at temperature t (Eqs. 10 and 11, A.1); the networks' own
    forward passes keep t = 1. Stacks of different depth are compared in their first layers, as many as both have.
    A key that either network's mask hides from a query is left out of both maps. Maps are made and compared in tiles,
    see `_tiles`.
    """

    levels = ("attention_maps",)

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.teacher is not None
        self.names = problem.pairing.distilled

    @abstractmethod
    def row_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Losses (B, Tq) between the rows of two maps (B, Tq, Tk)."""

    def taps(self) -> dict[str, Taps]:
        """The scores of all distilled stacks."""
        return {name: Taps(factors=True) for name in self.names}

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD (Eq. 12, and its mean over pairs)."""
        assert teacher is not None
        tapped = teacher.tap(batch.x, student.taps)
        pairs = []
        for name in self.names:
            # Not strict: one of the two stacks may be deeper.
            layers = zip(student.tapped[name].factors, tapped[name].factors, strict=False)
            pairs.append(torch.stack([self.layer_loss(name, ours, theirs) for ours, theirs in layers]).mean())
        return torch.stack(pairs).mean()

    def layer_loss(self, name: str, ours: Scores, theirs: Scores) -> Tensor:
        """The mean loss of the rows of one layer's maps."""
        batch, _, rows, _ = ours.query.shape
        ours = replace(ours, mask=self.visible(ours, theirs))
        loss = partial(self.tile_loss, name, ours.mask)
        total = tiled_sum(loss, ours, theirs, self.learned(name), temperature=self.problem.config.temperature)
        return total / (batch * rows)

    def tile_loss(self, name: str, mask: Tensor | None, a: Tensor, theirs: Scores, rows: slice) -> Tensor:
        """The sum of the losses of `rows` of the student's map, a (B, rows, Tk); the teacher's scores have all rows."""
        return self.row_loss(a, self.target(name, mask, theirs, rows)).sum()

    def visible(self, ours: Scores, theirs: Scores) -> Tensor | None:
        """The mask (Tq, Tk) of both maps: a key is visible if neither network hides it; None if all are."""
        # A mask is the same for all samples and heads. The first key is visible to every query.
        masks = [scores.mask for scores in (ours, theirs) if scores.mask is not None]
        return torch.stack(masks).all(0) if masks else None

    def target(self, name: str, mask: Tensor | None, theirs: Scores, rows: slice) -> Tensor:
        """`rows` of the teacher's map (B, rows, Tk), of its scores of all rows."""
        return attention_map(replace(theirs, mask=mask).rows(rows), self.problem.config.temperature)

    def learned(self, name: str) -> list[nn.Parameter]:
        """The method's own parameters that take part in the maps of a stack."""
        return []


def safe_log(p: Tensor) -> Tensor:
    """log p; for p = 0 (a hidden key, an underflow at a low temperature) the log of the least normal number.

    So 0 log 0 is 0, and gradients stay finite.
    """
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()
