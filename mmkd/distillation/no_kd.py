"""The control: a student trained on the labels alone."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from mmkd.config import Distillation
from mmkd.distillation.base import DistillationMethod
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.network import Outputs, Proxies
from mmkd.schema import Frozen, omit_defaults


class NoKDSettings(Frozen):
    """`size` chooses the student's proxies as EDAM's does: `up` is the student of EDAM-T, for its control."""

    size: Proxies = "down"

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "size")


class Method(DistillationMethod):
    """L_KD = 0, and no teacher."""

    needs_teacher = False
    tunes = ()
    Settings = NoKDSettings

    @classmethod
    def proxies(cls, config: Distillation) -> Proxies:
        """The rule of `size`."""
        return NoKDSettings.model_validate(config.settings).size

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """Zero."""
        return student.logits.new_zeros(())
