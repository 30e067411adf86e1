"""Knowledge distillation on logits (Hinton, Vinyals and Dean 2015): the usual baseline."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmkd.distillation.base import DistillationMethod
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.network import Outputs


class Method(DistillationMethod):
    """L_KD = t^2 KL(softmax(teacher / t) || softmax(student / t)), the mean over samples.

    The factor t^2 keeps gradients at one scale for all temperatures t, so that beta and t can be tuned apart. The usual
    temperature is 4: a teacher is certain of what it was trained on, so at t = 1 its probabilities are nearly the
    labels, and L_KD's gradient nearly that of L_c (measured in docs/utd-mhad.md).
    """

    usual_temperature = 4.0

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """See the class."""
        assert teacher is not None
        t = self.problem.config.temperature
        ours = F.log_softmax(student.logits / t, -1)
        theirs = F.log_softmax(teacher.outputs(batch).logits / t, -1)
        return t**2 * F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
