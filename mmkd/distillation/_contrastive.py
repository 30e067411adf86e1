"""The two estimators of contrastive representation distillation, over many sites at once.

A site is one pair of vectors of student and teacher that are compared: the logits, or one row of one layer's map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
