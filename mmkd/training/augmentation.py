"""Random augmentation of training batches; teacher and student see the same augmented sample."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mmkd.config import Augmentation


def augment(
    x: Mapping[str, Tensor], config: Augmentation, vectors: Mapping[str, int], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Augmented copies of x[modality] (B, T_m, F_m), in standardised units; a strength of 0 omits its step.

    - `crop` c, `warp` w: time runs from U(-c, c) to 1 + U(-c, c) and bends by U(-w, w) sin(pi u) / pi on the way, the
      same for all modalities of a sample; times outside read the first or last step.
    - `rotation` r: in a modality of spatial vectors (`vectors[m]` = 3) every vector of a sample is turned by the same
      rotation vector, N(0, r^2) on each axis.
    - `scale` s: a modality of a sample times 1 + N(0, s^2).
    - `shift` s: N(0, s^2) added to each feature, constant over time.
    - `noise` n: N(0, n^2) added to every value.

    Steps that are all zero are padding and stay so.

    Everything is drawn on the CPU, from `generator` (None: torch's default one).
    """
    batch = len(next(iter(x.values())))
    changed = dict(x)
    if config.crop or config.warp:
        ends = config.crop * _symmetric(batch, 2, generator)
        bend = config.warp * _symmetric(batch, 1, generator) / math.pi
        changed = {m: _retime(v, ends.to(v), bend.to(v)) for m, v in changed.items()}
    for m, v in changed.items():
        real = (v != 0).any(2, keepdim=True)  # padding stays exactly 0
        if config.rotation and vectors.get(m) == 3:
            v = _rotate(v, _rotations(config.rotation * torch.randn(batch, 3, generator=generator)).to(v))
        if config.scale:
            v = v * (1 + config.scale * torch.randn(batch, 1, 1, generator=generator)).to(v)
        if config.shift:
            v = v + config.shift * torch.randn(batch, 1, v.shape[2], generator=generator).to(v) * real
        if config.noise:
            v = v + config.noise * torch.randn(v.shape, generator=generator).to(v) * real
        changed[m] = v
    return changed


def _symmetric(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    return 2 * torch.rand(rows, columns, generator=generator) - 1


def _retime(x: Tensor, ends: Tensor, bend: Tensor) -> Tensor:
    """x (B, T, F) read at T new times, linearly; `ends` (B, 2) move the first and last time, `bend` (B, 1) the rest."""
    steps = x.shape[1]
    even = torch.linspace(0, 1, steps, device=x.device, dtype=x.dtype)
    bent = even + bend * torch.sin(math.pi * even)
    times = ends[:, :1] + (1 + ends[:, 1:] - ends[:, :1]) * bent
    positions = times.clamp(0, 1) * (steps - 1)
    before = positions.floor().long()
    after = (before + 1).clamp_max(steps - 1)
    weight = (positions - before).unsqueeze(-1)
    samples = torch.arange(len(x), device=x.device)[:, None]
    return torch.lerp(x[samples, before], x[samples, after], weight)


def _rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of rotation vectors (B, 3) in radians."""
    skew = torch.zeros(len(vectors), 3, 3)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -vectors[:, 2], vectors[:, 1], -vectors[:, 0]
    turns: Tensor = torch.linalg.matrix_exp(skew - skew.transpose(1, 2))
    return turns


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x (B, T, 3 V) with each triple of a sample turned by (B, 3, 3)."""
    triples = x.reshape(len(x), -1, 3)
    return (triples @ turn.transpose(1, 2)).reshape(x.shape)
