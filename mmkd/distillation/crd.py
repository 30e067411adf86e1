"""Contrastive representation distillation (Tian, Krishnan and Isola 2020; Eqs. 2 to 9 of the paper).

A representation of a sample in the student is drawn towards the teacher's of the same sample and away from the
teacher's of others, after one linear embedding per side, both trained with the student, and L2 normalisation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mmkd.config import Count, Distillation, Fraction
from mmkd.distillation._tiles import tiled_sum
from mmkd.distillation.base import DistillationMethod, Problem, draw_rows
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.attention import Tapped, Taps, attention_map
from mmkd.models.network import Network, Outputs
from mmkd.models.scores import Scores
from mmkd.schema import Frozen


class Embedding(nn.Module):
    """A linear map and L2 normalisation: (..., n) to (..., e)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.normalize(self.linear(x), dim=-1)


class Bank(nn.Module):
    """CRD's memory: for each of S sites, both sides' embeddings of N samples.

    A site is one pair of vectors that are compared: the logits, or one row of one layer's map.
    Student embeddings are scored against the teacher's memory and the other way round. Z of a side and site is
    N x the mean score of the first batch there, and fixed from then on.
    """

    student: Tensor
    teacher: Tensor
    log_z: Tensor

    def __init__(self, sites: int, samples: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        bound = math.sqrt(3 / width)
        for side in ("student", "teacher"):
            self.register_buffer(side, torch.empty(sites, samples, width).uniform_(-bound, bound))
        self.register_buffer("log_z", torch.full((2, sites), torch.nan))

    def loss(self, u: Tensor, v: Tensor, sites: Tensor, index: Tensor, negatives: Tensor, tau: float) -> Tensor:
        """Mean over sites of both directions' loss, and the update of the memory after scoring.

        u, v: the student's and teacher's embeddings (S', B, e) at `sites` (S',); `index` (B,) are the samples' indices
        in train, `negatives` (B, K) those of samples of other classes.
        """
        indices = torch.cat([index[:, None], negatives], 1)
        total = self._direction(u, self.teacher, 0, sites, indices, tau)
        total = total + self._direction(v, self.student, 1, sites, indices, tau)
        self._update(self.student, u, sites, index)
        self._update(self.teacher, v, sites, index)
        return total

    def _direction(self, u: Tensor, memory: Tensor, side: int, sites: Tensor, indices: Tensor, tau: float) -> Tensor:
        """-(1/B) sum [log s/(s + c) + sum_K log c/(s' + c)] with s = exp(<u, M>/tau)/Z and c = K/N."""
        samples, count = memory.shape[1], indices.shape[1] - 1
        # All N products are far cheaper than gathering B x K vectors.
        logits = u @ memory[sites].transpose(1, 2) / tau
        chosen = logits.gather(2, indices.expand(len(sites), -1, -1))
        with torch.no_grad():
            unset = sites[self.log_z[side, sites].isnan()]
            first = chosen.detach()[self.log_z[side, sites].isnan()].flatten(1)
            self.log_z[side, unset] = first.logsumexp(1) - math.log(first.shape[1]) + math.log(samples)
        log_score = chosen - self.log_z[side, sites][:, None, None]
        log_c = math.log(count / samples)
        attract = F.softplus(log_c - log_score[..., 0])
        repel = F.softplus(log_score[..., 1:] - log_c).sum(-1)
        return (attract + repel).mean()

    @torch.no_grad()
    def _update(self, memory: Tensor, new: Tensor, sites: Tensor, index: Tensor) -> None:
        old = memory[sites[:, None], index]
        memory[sites[:, None], index] = F.normalize(self.momentum * old + (1 - self.momentum) * new, dim=-1)


def in_batch_loss(u: Tensor, v: Tensor, labels: Tensor, tau: float, mask_same_class: bool) -> Tensor:
    """InfoNCE between embeddings u and v (S, B, e): the mean over sites and both directions.

    Negatives are the other samples of the batch, with `mask_same_class` those of other classes alone; labels (B,).
    """
    logits = u @ v.transpose(1, 2) / tau
    if mask_same_class:
        same = labels[:, None] == labels
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, -math.inf)
    diagonal = torch.arange(len(labels), device=labels.device).expand(len(u), -1)
    directions = [F.cross_entropy(side.flatten(0, 1), diagonal.flatten()) for side in (logits, logits.transpose(1, 2))]
    return torch.stack(directions).mean()


BANK_LIMIT = 2 * 2**30
"""Bytes of memory banks beyond which a trial is refused: rows of MOSEI's maps would take 16.7 GB per bank."""


class CRDSettings(Frozen):
    """`estimator` `auto` is `bank` for one vector per sample and `in_batch` for many.

    `negatives` and `momentum` belong to `bank`; `mask_same_class` to `in_batch`; `rows` samples that many rows per
    layer and step (unbiased; 0: all) of attention maps.
    """

    estimator: Literal["auto", "bank", "in_batch"] = "auto"
    embedding: Count = 128
    negatives: Count = 4096
    momentum: Fraction = 0.5
    mask_same_class: bool = True
    rows: Annotated[int, Field(ge=0)] = 0


class Method(DistillationMethod):
    """CRD at one of four levels; its temperature is tau.

    Each pair of distilled stacks (or the logits, or the last hidden layer) has one embedding head per side, shared by
    its layers and rows. L_KD is the mean over layers, rows and pairs (Eqs. 7 and 9).
    """

    levels = ("attention_maps", "post_attention", "penultimate", "final")
    usual_temperature = 0.07
    Settings = CRDSettings

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        assert problem.teacher is not None
        assert problem.config.level is not None
        self.settings = self.parse(problem.config)
        self.level, self.tau = problem.config.level, problem.config.temperature
        at_stacks = self.level in ("attention_maps", "post_attention")
        self.names = problem.pairing.distilled if at_stacks else (self.level,)
        self.rows = {name: problem.student.map_shape(name)[0] for name in self.names} if self._on_maps else {}
        self.embeddings, self.banks = nn.ModuleDict(), nn.ModuleDict()
        for name in self.names:
            widths = [self._width(network, name) for network in (problem.student, problem.teacher)]
            self.embeddings[name] = nn.ModuleList(Embedding(w, self.settings.embedding) for w in widths)
        if self.settings.estimator == "bank":
            self._make_banks(problem)
        self.contrasts_classes = self.settings.estimator == "in_batch" and self.settings.mask_same_class

    @classmethod
    def parse(cls, config: Distillation) -> CRDSettings:
        """Validate the settings; `auto` becomes the level's own estimator."""
        settings = super().parse(config)
        assert isinstance(settings, CRDSettings)
        if settings.estimator != "auto":
            return settings
        chosen = "bank" if config.level in ("final", "penultimate") else "in_batch"
        return settings.model_copy(update={"estimator": chosen})

    @property
    def _on_maps(self) -> bool:
        return self.level == "attention_maps"

    def _width(self, network: Network, name: str) -> int:
        """Length of the vectors that are compared at `name`."""
        if self._on_maps:
            return network.map_shape(name)[1]
        if self.level == "post_attention":
            return network.stack(name).width
        return network.head.out.out_features if self.level == "final" else network.head.out.in_features

    def _make_banks(self, problem: Problem) -> None:
        samples, settings = len(problem.labels), self.settings
        sites = {name: self._layers(name) * self.rows.get(name, 1) for name in self.names}
        size = 2 * 4 * sum(sites.values()) * samples * settings.embedding
        if size > BANK_LIMIT:
            raise UserError(
                f"crd at {self.level}: memory banks for {sum(sites.values())} sites x {samples} samples would take "
                f"{size / 2**30:.1f} GiB (limit {BANK_LIMIT / 2**30:.0f}): set estimator = 'in_batch'"
            )
        for name in self.names:
            self.banks[name] = Bank(sites[name], samples, settings.embedding, settings.momentum)
        # Indices in train ordered by class: the negatives of a class are all outside its block.
        counts = problem.labels.bincount(minlength=problem.classes)
        if int((counts > 0).sum()) < 2:
            raise UserError("crd: train has one class only, so there are no negatives of other classes")
        self.register_buffer("by_class", problem.labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def _layers(self, name: str) -> int:
        """Number of layers that are compared: as many as both the student's and the teacher's stack have."""
        assert self.problem.teacher is not None
        if name == self.level:
            return 1
        return min(len(n.stack(name).layers) for n in (self.problem.student, self.problem.teacher))

    def taps(self) -> dict[str, Taps]:
        """Taps of the distilled stacks that the level needs; rows of maps are drawn again in each step."""
        if self._on_maps:
            device = next(self.parameters()).device
            return {n: Taps(factors=True, rows=draw_rows(self.rows[n], self.settings.rows, device)) for n in self.names}
        return {name: Taps(attended=True) for name in self.names} if self.level == "post_attention" else {}

    def forward(self, batch: Batch, student: Outputs, teacher: FrozenTeacher | None) -> Tensor:
        """L_KD (Eqs. 2, 7 and 9)."""
        assert teacher is not None
        negatives = self._draw_negatives(batch.y) if self.banks else None
        if self._on_maps:
            return self._loss_on_maps(batch, student, teacher, negatives)
        if self.level == "post_attention":
            tapped = teacher.tap(batch.x, student.taps)
            pairs = {n: (self._features(student.tapped[n], n), self._features(tapped[n], n)) for n in self.names}
        else:
            pairs = {self.level: (self._vector(student)[None], self._vector(teacher.outputs(batch))[None])}
        losses = []
        for name, (ours, theirs) in pairs.items():
            sites = torch.arange(len(ours), device=ours.device)
            losses.append(self._compare(name, *self._embed(name, ours, theirs), sites, batch, negatives))
        return torch.stack(losses).mean()

    def _vector(self, outputs: Outputs) -> Tensor:
        return outputs.logits if self.level == "final" else outputs.penultimate

    def _features(self, tapped: Tapped, name: str) -> Tensor:
        """The attended sequence of each layer of a stack, averaged over steps: (layers, B, D)."""
        return torch.stack([attended.mean(1) for attended in tapped.attended[: self._layers(name)]])

    def _loss_on_maps(self, batch: Batch, student: Outputs, teacher: FrozenTeacher, negatives: Tensor | None) -> Tensor:
        """L_KD of rows of maps (Eq. 9), which are made, embedded and compared in tiles of rows, see `_tiles`."""
        tapped = teacher.tap(batch.x, student.taps)
        losses = []
        for name in self.names:
            drawn = student.taps[name].rows
            # Not strict: one of the two stacks may be deeper.
            layers = list(zip(student.tapped[name].factors, tapped[name].factors, strict=False))
            rows = torch.arange(layers[0][0].query.shape[2], device=batch.y.device) if drawn is None else drawn
            totals = []
            for layer, (ours, theirs) in enumerate(layers):
                loss = partial(self._tile_loss, name, layer * self.rows[name] + rows, batch, negatives)
                totals.append(tiled_sum(loss, ours, theirs, list(self.embeddings[name].parameters()), whole_batch=True))
            losses.append(torch.stack(totals).sum() / (len(layers) * len(rows)))
        return torch.stack(losses).mean()

    def _tile_loss(
        self, name: str, sites: Tensor, batch: Batch, negatives: Tensor | None, a: Tensor, theirs: Scores, rows: slice
    ) -> Tensor:
        """The sum of the losses of `rows` of one layer, a (B, rows, Tk), whose rows are the bank's `sites`."""
        b = attention_map(theirs.rows(rows))
        # Transposed after the embedding, which is smaller.
        u, v = (vectors.transpose(0, 1) for vectors in self._embed(name, around_zero(a), around_zero(b)))
        return self._compare(name, u, v, sites[rows], batch, negatives) * len(sites[rows])

    def _embed(self, name: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings (..., e) of vectors (..., n) of student and teacher."""
        pair = self.embeddings[name]
        assert isinstance(pair, nn.ModuleList)
        return pair[0](ours), pair[1](theirs)

    def _compare(
        self, name: str, u: Tensor, v: Tensor, sites: Tensor, batch: Batch, negatives: Tensor | None
    ) -> Tensor:
        """The mean loss of some sites of one pair, between embeddings (S, B, e) of student and teacher."""
        if negatives is None:
            return in_batch_loss(u, v, batch.y, self.tau, self.settings.mask_same_class)
        bank = self.banks[name]
        assert isinstance(bank, Bank)
        return bank.loss(u, v, sites, batch.index, negatives, self.tau)

    def _draw_negatives(self, labels: Tensor) -> Tensor:
        """Indices in train (B, K) of samples of other classes, drawn with replacement."""
        by_class, counts = self.get_buffer("by_class"), self.get_buffer("counts")
        own, total = counts[labels], len(by_class)
        # Drawn on the CPU, from the method's stream, which a checkpoint holds.
        uniform = torch.rand(len(labels), min(self.settings.negatives, total)).to(labels.device)
        drawn = (uniform * (total - own)[:, None]).long().clamp_max((total - own - 1)[:, None])
        block = (counts.cumsum(0) - counts)[labels]
        skipped = drawn + own[:, None] * (drawn >= block[:, None])
        return by_class[skipped]


def around_zero(maps: Tensor) -> Tensor:
    """Rows of maps (B, Tq, Tk) as vectors around 0."""
    # A row sums to 1, so its entries are small and nearly equal: n p - 1 is the same row around 0 at scale 1. The
    # linear head could learn this, but begins with a bias that would drown the row.
    return maps * maps.shape[-1] - 1
