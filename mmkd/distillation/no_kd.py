"""The control: a student trained on the labels alone."""

from __future__ import annotations

from torch import Tensor

from mmkd.distillation.base import DistillationMethod
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.network import Outputs


class Method(DistillationMethod):
    """L_KD = 0, and no teacher."""

    needs_teacher = False
    tunes = ()

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """Zero."""
        return student.logits.new_zeros(())
