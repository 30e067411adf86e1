"""Modality-specific distillation (Jin et al. 2021): one term per modality seen by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmkd.config import Count, Positive
from mmkd.data.tensors import Samples
from mmkd.distillation.base import DistillationMethod, Problem
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher, blank
from mmkd.errors import UserError
from mmkd.models.network import Network, Outputs
from mmkd.schema import Frozen


class MSDSettings(Frozen):
    """Weighting of the modalities' terms; `hidden` and `meta_rate` belong to `learned`.

    `hidden` is the width of the network that learns the weights, `meta_rate` its learning rate.
    """

    weighting: Literal["uniform", "population", "instance", "learned"] = "uniform"
    hidden: Count = 32
    meta_rate: Positive = 1e-3


class Method(DistillationMethod):
    """L_KD = t^2 [KL(t(x) || s(x)) + sum_m w_m KL(t(x^m) || s(x^m))], the mean over samples.

    x^m keeps modality m and blanks the others (see `blank`), for both teacher and student. The weights w_m of a
    sample sum to 1, beside w_0 = 1 of the whole sample: this normalisation is our choice, so that beta means the same
    for all weightings. With the saliency S_m(x) = KL(t(x) || t(x without m)), at temperature 1 so that t does not move
    them:

    - `uniform`: all equal;
    - `population`: in proportion to the mean of S_m over train;
    - `instance`: in proportion to the sample's own S_m;
    - `learned`: by a network from the teacher's logits of x and of all x^m, see `Weigher`; its examples are a part
      held out of train (`training.held_out`).

    A student of one modality has one term, of the modality that it reads: KL(t(x) || s) + KL(t(x^p) || s).
    """

    usual_temperature = 4.0
    Settings = MSDSettings

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        settings = self.parse(problem.config)
        assert isinstance(settings, MSDSettings)
        self.weighting, self.inputs = settings.weighting, problem.pairing.inputs
        self.weigher: Weigher | None = None
        if self.weighting == "uniform":
            return
        if len(self.inputs) == 1:
            raise UserError(
                f"msd: weighting = {self.weighting!r} needs a student of several modalities (pairing multimodal); "
                f"this one, of {self.inputs[0]} alone, has one term to weigh: use uniform"
            )
        if self.weighting == "learned":
            if problem.held_out is None:
                raise UserError("msd: learned weights need a part held out of train: set training.held_out = 0.1")
            known = (1 + len(self.inputs)) * problem.classes
            self.weigher = Weigher(known, len(self.inputs), settings.hidden, settings.meta_rate)

    def prepare_step(self, batch: Batch, loss: Callable[[], Tensor], learning_rate: float) -> None:
        """`learned`: the step of the network of the weights."""
        if self.weigher is not None:
            assert self.problem.held_out is not None
            self.weigher.look_ahead(self.problem.student, loss, learning_rate, self.problem.held_out, len(batch.y))

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """See the class."""
        assert teacher is not None
        t = self.problem.config.temperature
        whole = teacher.outputs(batch).logits
        theirs = torch.stack([teacher.outputs(batch, {m}).logits for m in self.inputs], 1)
        divergences = divergence(theirs / t, self._views(batch, student) / t)
        weights = self.weights(batch, teacher, whole, theirs)
        self.monitored = {f"weight_{m}": weights[:, n].detach().mean() for n, m in enumerate(self.inputs)}
        return t**2 * (divergence(whole / t, student.logits / t) + (weights * divergences).sum(1)).mean()

    def weights(self, batch: Batch, teacher: FrozenTeacher, whole: Tensor, theirs: Tensor) -> Tensor:
        """w_m (B, M), from the teacher's logits (B, C) of the samples and (B, M, C) of their views x^m."""
        if self.weigher is not None:
            weights: Tensor = self.weigher(torch.cat([whole[:, None], theirs], 1).flatten(1))
            return weights
        if self.weighting == "uniform":
            return whole.new_full(theirs.shape[:2], 1 / len(self.inputs))
        if self.weighting == "population":
            logits = teacher.on_train().logits
            saliencies = [divergence(logits, teacher.on_train(self._without(m)).logits).mean() for m in self.inputs]
            return shares(torch.stack(saliencies)).expand(theirs.shape[:2])
        saliencies = [divergence(whole, teacher.outputs(batch, self._without(m)).logits) for m in self.inputs]
        return shares(torch.stack(saliencies, 1))

    def _without(self, modality: str) -> set[str]:
        return {m for m in self.inputs if m != modality}

    def _views(self, batch: Batch, student: Outputs) -> Tensor:
        """The student's logits (B, M, C) of all x^m, in one pass."""
        if len(self.inputs) == 1:
            return student.logits[:, None]
        views = [blank({m: batch.x[m] for m in self.inputs}, {kept}) for kept in self.inputs]
        stacked = {m: torch.cat([view[m] for view in views]) for m in self.inputs}
        logits: Tensor = self.problem.student(stacked).logits
        return torch.stack(logits.chunk(len(self.inputs)), 1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax p || softmax q) over the last axis of logits (..., C)."""
    return F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="none").sum(-1)


def shares(saliency: Tensor) -> Tensor:
    """Saliencies (..., M) as shares that sum to 1; equal ones where all are zero up to rounding."""
    kept = saliency.clamp_min(0) + torch.finfo(saliency.dtype).eps
    return kept / kept.sum(-1, keepdim=True)


class Weigher(nn.Module):
    """A small network from known logits (B, K) to weights (B, M) that sum to 1, and its optimiser (Adam).

    The bilevel step of learning to reweight (Ren et al. 2018, Shu et al. 2019), which MSD takes over.

    It begins with equal weights. Its parameters require a gradient within `look_ahead` alone, so that no other
    optimiser takes them: lowering the training loss itself would move all weight to the smallest of its terms.
    """

    def __init__(self, known: int, weights: int, hidden: int, learning_rate: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(known, hidden), nn.ReLU(), nn.Linear(hidden, weights))
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)
        self.requires_grad_(False)
        # The virtual step scales gradients by the student's small learning rate: Adam's usual eps is not small then.
        self.optimizer = torch.optim.Adam(self.parameters(), learning_rate, eps=1e-15)

    def forward(self, known: Tensor) -> Tensor:
        """See the class."""
        weights: Tensor = self.network(known).softmax(-1)
        return weights

    def look_ahead(
        self, student: Network, loss: Callable[[], Tensor], learning_rate: float, held_out: Samples, size: int
    ) -> None:
        """One step of this network, whose weights `loss` reads, down the student's cross-entropy one step ahead.

        theta' = theta - learning_rate d loss(theta, phi) / d theta  (plain gradient descent, unclipped)
        phi    moves by Adam along  d CE(student of theta' on a batch of `size` of the held-out part) / d phi

        The student, theta, is left as it is. Ahead it is in evaluation mode, as it will be judged.
        """
        self.requires_grad_(True)
        theta = dict(student.named_parameters())
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be differentiated twice
            value = loss()
        gradients = torch.autograd.grad(value, list(theta.values()), create_graph=True)
        ahead = {
            name: parameter - learning_rate * gradient
            for (name, parameter), gradient in zip(theta.items(), gradients, strict=True)
        }
        # Drawn on the CPU, from the method's stream, which a checkpoint holds.
        x, y = held_out.at(torch.randperm(len(held_out))[:size].to(held_out.y.device))
        was_training = student.training
        student.eval()
        criterion = F.cross_entropy(functional_call(student, ahead, (x,)).logits, y)
        student.train(was_training)
        phi = list(self.parameters())
        for parameter, gradient in zip(phi, torch.autograd.grad(criterion, phi), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.requires_grad_(False)

    def get_extra_state(self) -> dict[str, object]:
        """The optimiser's state, so that it is in the module's `state_dict` and in checkpoints."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        """See `get_extra_state`."""
        self.optimizer.load_state_dict(state)
