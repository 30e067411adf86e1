"""What a distillation method is given, and what it gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mmkd.config import Distillation, Frozen, explain
from mmkd.errors import UserError
from mmkd.models.attention import Tapped, Taps
from mmkd.models.network import Network, Outputs, Proxies
from mmkd.models.pairings import Pairing

REMEMBERING_BATCH = 256
"""Samples on which a teacher is run at once when all of train is."""


@dataclass(frozen=True)
class Batch:
    """A training batch: x[modality] (B, T_m, F_m), labels y (B,), and each sample's place in train (B,)."""

    x: Mapping[str, Tensor]
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class Problem:
    """What a method is built for. `labels` (N,) are train's; networks are given for their sizes."""

    config: Distillation
    pairing: Pairing
    student: Network
    teacher: Network | None
    labels: Tensor
    classes: int


class FrozenTeacher:
    """A trained teacher: in evaluation mode, without gradients, run only as far as asked."""

    def __init__(self, network: Network) -> None:
        self.network = network.eval().requires_grad_(False)
        self._train: Mapping[str, Tensor] | None = None
        self._remembered: Outputs | None = None

    def remember(self, train: Mapping[str, Tensor]) -> None:
        """Have `outputs` run the teacher on train, x[modality] (N, T_m, F_m), once, when it is first called.

        Logits and last hidden layers are small (19 MB for MOSEI); what `tap` sees is not, and is never kept. Only
        for training without augmentation, where a batch is `train` at `batch.index`.
        """
        self._train, self._remembered = train, None

    @torch.no_grad()
    def tap(self, x: Mapping[str, Tensor], taps: Mapping[str, Taps]) -> dict[str, Tapped]:
        """See `Network.tap`."""
        return self.network.tap(x, taps)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Outputs:
        """Logits and last hidden layer of the batch's samples: looked up after `remember`, else computed."""
        if self._train is None:
            outputs: Outputs = self.network(batch.x)
            return outputs
        if self._remembered is None:
            self._remembered = self._run_in_parts(self._train)
        known = self._remembered
        return Outputs(known.logits[batch.index], known.penultimate[batch.index], {}, {})

    def _run_in_parts(self, x: Mapping[str, Tensor]) -> Outputs:
        parts = zip(*(value.split(REMEMBERING_BATCH) for value in x.values()), strict=True)
        outputs = [self.network(dict(zip(x, part, strict=True))) for part in parts]
        return Outputs(torch.cat([o.logits for o in outputs]), torch.cat([o.penultimate for o in outputs]), {}, {})


class NoSettings(Frozen):
    """Of a method that has none."""


class DistillationMethod(nn.Module):
    """One way to compute L_KD. Parameters and buffers are trained and checkpointed with the student's.

    A subclass is called `Method` and stands alone in a file of its own.
    """

    levels: ClassVar[tuple[str, ...]] = ()
    """Where it can act; the first is the default. Empty: the method has no choice of level."""
    needs_teacher: ClassVar[bool] = True
    tunes: ClassVar[tuple[str, ...]] = ("alpha", "beta", "temperature")
    """What a study may tune besides the learning rate."""
    usual_temperature: ClassVar[float] = 1.0
    """Temperature of the documented default, which is a study's trial 0."""
    Settings: ClassVar[type[Frozen]] = NoSettings
    summary: ClassVar[str] = ""
    """One line for `--list` and the documentation."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.monitored: dict[str, Tensor] = {}
        """Scalars of the last batch to record besides the loss; the trainer averages them over the epoch."""

    @classmethod
    def parse(cls, config: Distillation) -> Frozen:
        """The method's settings, with its defaults filled in.

        Raises:
            UserError: an unknown setting or a value that is not allowed.
        """
        try:
            return cls.Settings.model_validate(config.settings)
        except ValidationError as error:
            raise UserError(explain(error, f"settings of method {config.method}")) from None

    @classmethod
    def proxies(cls, config: Distillation) -> Proxies:
        """How the student's proxies get their lengths, see `build_student`."""
        return "down"

    def taps(self) -> dict[str, Taps]:
        """What to tap in the student at this step, by stack."""
        return {}

    @abstractmethod
    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD of the batch, a scalar; `student` holds what `taps` asked for."""


def draw_rows(rows: int, wanted: int, device: torch.device) -> Tensor | None:
    """`wanted` of `rows` row numbers in random order without repetition; None (all) if `wanted` is 0 or not fewer."""
    if wanted == 0 or wanted >= rows:
        return None
    # Drawn on the CPU, whose generator a checkpoint holds.
    return torch.randperm(rows)[:wanted].to(device)
