"""Base class of distillation methods, and the problem that a method is built for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mmkd.config import Distillation
from mmkd.data.tensors import Samples
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.attention import Taps
from mmkd.models.network import Network, Outputs, Proxies
from mmkd.models.pairings import Pairing
from mmkd.schema import Frozen, explain


@dataclass(frozen=True)
class Problem:
    """Arguments of a method. `labels` (N,) are train's; `held_out` are the samples kept from it, if any.

    `student` is the network that is trained; `teacher` is given for its sizes.
    """

    config: Distillation
    pairing: Pairing
    student: Network
    teacher: Network | None
    labels: Tensor
    classes: int
    held_out: Samples | None = None


class NoSettings(Frozen):
    """Settings of a method that has none."""


class DistillationMethod(nn.Module):
    """One way to compute L_KD. Parameters and buffers are trained and checkpointed with the student's.

    While a method is built, asked for taps or run, torch's default generators are its own: what it draws does not move
    the student's dropout.

    Each subclass is called `Method` and is alone in its file.
    """

    levels: ClassVar[tuple[str, ...]] = ()
    """Levels at which it can act; the first is the default. Empty: the method has no choice of level."""
    needs_teacher: ClassVar[bool] = True
    tunes: ClassVar[tuple[str, ...]] = ("alpha", "beta", "temperature")
    """Parameters that a study may tune besides the learning rate."""
    usual_temperature: ClassVar[float] = 1.0
    """Temperature of the documented default, which is a study's trial 0."""
    Settings: ClassVar[type[Frozen]] = NoSettings

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.monitored: dict[str, Tensor] = {}
        """Scalars of the last batch to record besides the loss; the trainer averages them over the epoch."""
        self.contrasts_classes = False
        """True if L_KD compares samples of a batch of unlike classes: it is 0 for a batch of a single class."""

    @classmethod
    def parse(cls, config: Distillation) -> Frozen:
        """Validate the method's settings and fill in its defaults.

        Raises:
            UserError: an unknown setting or a value that is not allowed.
        """
        try:
            return cls.Settings.model_validate(config.settings)
        except ValidationError as error:
            known = ", ".join(cls.Settings.model_fields) or "none"
            raise UserError(f"{explain(error, f'settings of method {config.method}')} (settings: {known})") from None

    @classmethod
    def proxies(cls, config: Distillation) -> Proxies:
        """Rule for the lengths of the student's proxies, see `build_student`."""
        return "down"

    def taps(self) -> dict[str, Taps]:
        """Taps in the student at this step, by stack."""
        return {}

    def prepare_step(self, batch: Batch, loss: Callable[[], Tensor], learning_rate: float) -> None:
        """Update parameters that a method learns by itself; called before each optimiser step.

        `loss` computes, at each call, the whole loss that the step is about to lower; `learning_rate` is the step's.
        Parameters that are learned here have `requires_grad` False at all other times, so that the student's
        optimiser leaves them alone. An optimiser's state is checkpointed as a module's extra state.
        """

    @abstractmethod
    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD of the batch, a scalar; `student` holds the outputs that `taps` requested."""


def draw_rows(rows: int, wanted: int, device: torch.device) -> Tensor | None:
    """`wanted` of `rows` row numbers in random order without repetition; None (all) if that is 0 or >= `rows`."""
    if wanted == 0 or wanted >= rows:
        return None
    # Drawn on the CPU, from the method's stream, which a checkpoint holds.
    return torch.randperm(rows)[:wanted].to(device)
