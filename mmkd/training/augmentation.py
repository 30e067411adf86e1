"""Random changes of a training batch; teacher and student see the same augmented sample."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.config import Augmentation


def augment(x: Mapping[str, Tensor], config: Augmentation, vectors: Mapping[str, int]) -> dict[str, Tensor]:
    """Augmented copies of x[modality] (B, T_m, F_m), in standardised units.

    - `crop` c: the same random window of 1 - c to 1 of the time of all modalities of a sample, stretched to T_m.
    - `rotation` a: modalities made of spatial vectors (`vectors[m]` = 3) are turned about a random axis by up to
      a degrees, all vectors and modalities of a sample alike.
    - `scale` s: each modality of a sample times 1 + U(-s, s).
    - `noise` n: normal noise of standard deviation n on every value.

    Everything is drawn on the CPU, whose generator a checkpoint holds.
    """
    batch = len(next(iter(x.values())))
    changed = dict(x)
    if config.crop:
        length = 1 - config.crop * torch.rand(batch)
        start = (1 - length) * torch.rand(batch)
        changed = {m: _crop(v, start.to(v), length.to(v)) for m, v in changed.items()}
    if config.rotation:
        turn = _random_rotations(batch, math.radians(config.rotation))
        changed = {m: _rotate(v, turn.to(v)) if vectors.get(m) == 3 else v for m, v in changed.items()}
    if config.scale:
        factors = {m: 1 + config.scale * (2 * torch.rand(batch, 1, 1) - 1) for m in changed}
        changed = {m: v * factors[m].to(v) for m, v in changed.items()}
    if config.noise:
        changed = {m: v + config.noise * torch.randn(v.shape).to(v) for m, v in changed.items()}
    return changed


def _crop(x: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Window [start, start + length] of time (as fractions, (B,)), by linear interpolation at T points; x (B, T, F)."""
    steps = x.shape[1]
    grid = torch.linspace(0, 1, steps, device=x.device, dtype=x.dtype)
    places = (start[:, None] + length[:, None] * grid) * (steps - 1)
    before = places.floor().long().clamp(0, max(steps - 2, 0))
    after = (before + 1).clamp_max(steps - 1)
    weight = (places - before).unsqueeze(-1)
    index = before.unsqueeze(-1).expand(-1, -1, x.shape[2])
    return torch.lerp(x.gather(1, index), x.gather(1, after.unsqueeze(-1).expand_as(index)), weight)


def _random_rotations(batch: int, limit: float) -> Tensor:
    """Rotation matrices (B, 3, 3) about uniform axes by uniform angles up to `limit` radians (Rodrigues)."""
    axis = F.normalize(torch.randn(batch, 3), dim=-1)
    angle = (limit * (2 * torch.rand(batch) - 1))[:, None, None]
    k = torch.zeros(batch, 3, 3)
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    k = k - k.transpose(1, 2)
    return torch.eye(3) + angle.sin() * k + (1 - angle.cos()) * (k @ k)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x (B, T, 3 V) with each xyz triple turned by (B, 3, 3)."""
    batch, steps, features = x.shape
    triples = x.reshape(batch, steps * features // 3, 3)
    return (triples @ turn.transpose(1, 2)).reshape(x.shape)
