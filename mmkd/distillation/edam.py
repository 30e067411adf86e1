"""Entropy distillation in attention maps (section 4.3, Eqs. 10 to 13): cross-entropy between rows of maps.

The student's maps and the teacher's are brought to one size either way: EDAM-S (`size = "down"`) gives the student
proxies of the teacher's lengths, EDAM-T (`"up"`) takes the teacher's maps to the size of the student's.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from mmkd.config import Distillation
from mmkd.distillation._maps import MapMethod, safe_log
from mmkd.distillation.base import Problem
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.attention import attention_map
from mmkd.models.network import Outputs, Proxies
from mmkd.models.scores import Scores
from mmkd.schema import Frozen

Shape = tuple[int, int]


class EDAMSettings(Frozen):
    """`edam_direction` assigns the maps to a and b of F(a, b) = -a log b (Eq. 13).

    `student_teacher`, as printed: a is the student's map. The loss is least where each of its rows puts all mass on
    the teacher's argmax. `teacher_student`: the usual cross-entropy with the teacher's map as target, least where the
    rows are equal. `freeze_upsampling` belongs to `size` `up`.
    """

    edam_direction: Literal["student_teacher", "teacher_student"] = "student_teacher"
    size: Proxies = "down"
    freeze_upsampling: bool = False

    @model_validator(mode="after")
    def _only_up_has_upsampling(self) -> EDAMSettings:
        if self.freeze_upsampling and self.size == "down":
            raise ValueError("freeze_upsampling needs size = 'up'")
        return self


class Upsampling(nn.Module):
    """Scores (B, heads, Tq, Tk) to (B, heads, Tq', Tk'), by a linear layer on each axis that differs.

    It begins as linear interpolation. There is no bias: over columns it would add the same map to every sample's,
    over rows it would drop out of the softmax.
    """

    def __init__(self, old: Shape, new: Shape) -> None:
        super().__init__()
        weights = [None if a == b else nn.Parameter(interpolation(a, b)) for a, b in zip(old, new, strict=True)]
        self.rows, self.columns = weights

    def forward(self, scores: Scores, rows: slice, temperature: float) -> Tensor:
        """`rows` of the new scores over a temperature, (B, heads, rows, Tk'); none is hidden."""
        if scores.mask is None:
            # R (q k^T) C^T = (R q) (C k)^T
            query = scores.query[:, :, rows] if self.rows is None else self.rows[rows] @ scores.query
            key = scores.key if self.columns is None else self.columns @ scores.key
            return Scores(query, key).dense(temperature)
        # A hidden key adds nothing to its neighbours' scores; a product of matrices cannot say so.
        visible = scores.dense(temperature).masked_fill(~scores.mask, 0.0)
        new = visible[:, :, rows] if self.rows is None else self.rows[rows] @ visible
        return new if self.columns is None else new @ self.columns.T


def interpolation(old: int, new: int) -> Tensor:
    """Matrix (new, old) that interpolates a sequence linearly (align_corners=False)."""
    return F.interpolate(torch.eye(old)[None], new, mode="linear", align_corners=False)[0].T.contiguous()


class Method(MapMethod):
    """EDAM; its temperature is t of Eq. 11.

    With `up`, up-sampling is trained with the student, one layer per axis and distilled pair, shared by heads and by
    the stack's layers. The loss can then also fall by moving the target towards the student: the mean entropy of the
    target's rows (nats) is recorded as `target_entropy`.
    """

    Settings = EDAMSettings

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.teacher is not None
        self.settings = EDAMSettings.model_validate(problem.config.settings)
        self.upsamplings = nn.ModuleDict()
        self.entropies: list[Tensor] = []
        if self.settings.size == "up":
            for name in self.names:
                self.upsamplings[name] = Upsampling(problem.teacher.map_shape(name), problem.student.map_shape(name))
        self.upsamplings.requires_grad_(not self.settings.freeze_upsampling)

    @classmethod
    def proxies(cls, config: Distillation) -> Proxies:
        """The rule of `size`."""
        settings = cls.parse(config)
        assert isinstance(settings, EDAMSettings)
        return settings.size

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD (Eqs. 10 to 13)."""
        self.entropies.clear()
        loss = super().forward(batch, student, teacher)
        if self.upsamplings:
            self.monitored = {"target_entropy": torch.stack(self.entropies).mean()}
        return loss

    def layer_loss(self, name: str, ours: Scores, theirs: Scores) -> Tensor:
        """The mean loss of the rows of one layer's maps; records the mean entropy of up-sampled targets."""
        self.entropies.append(ours.query.new_zeros(()))
        loss = super().layer_loss(name, ours, theirs)
        batch, _, rows, _ = ours.query.shape
        self.entropies[-1] /= batch * rows
        return loss

    def tile_loss(self, name: str, mask: Tensor | None, a: Tensor, theirs: Scores, rows: slice) -> Tensor:
        """See the base class."""
        b = self.target(name, mask, theirs, rows)
        if self.upsamplings:
            self.entropies[-1] -= (b * safe_log(b)).detach().sum()
        return self.row_loss(a, b).sum()

    def visible(self, ours: Scores, theirs: Scores) -> Tensor | None:
        """The mask (Tq, Tk) of both maps; with `up` the student's alone."""
        return ours.mask if self.upsamplings else super().visible(ours, theirs)

    def target(self, name: str, mask: Tensor | None, theirs: Scores, rows: slice) -> Tensor:
        """`rows` of the teacher's map (B, rows, Tk); with `up` its scores are up-sampled first."""
        if not self.upsamplings:
            return super().target(name, mask, theirs, rows)
        stretched = self.upsamplings[name](theirs, rows, self.problem.config.temperature)
        return attention_map(stretched if mask is None else stretched.masked_fill(~mask[rows], -math.inf))

    def learned(self, name: str) -> list[nn.Parameter]:
        """See the base class."""
        return list(self.upsamplings[name].parameters()) if self.upsamplings else []

    def row_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """F(a, b) = -sum a log b over columns (Eq. 13)."""
        a, b = (student, teacher) if self.settings.edam_direction == "student_teacher" else (teacher, student)
        return -(a * safe_log(b)).sum(-1)
