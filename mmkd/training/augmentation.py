"""Random augmentation of training batches; teacher and student see the same augmented sample."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mmkd.config import Augmentation


def augment(
    x: Mapping[str, Tensor],
    config: Augmentation,
    vectors: Mapping[str, int],
    generator: torch.Generator | None = None,
    lengths: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Augmented copies of x[modality] (B, T_m, F_m), in standardised units; a strength of 0 omits its step.

    - `crop` c, `warp` w: time runs from U(-c, c) to 1 + U(-c, c) and bends by U(-w, w) sin(pi u) / pi on the way, the
      same for all modalities of a sample; times outside read the first or last step.
    - `rotation` r: in a modality of spatial vectors (`vectors[m]` = 3) every vector of a sample is turned by the same
      rotation vector, N(0, r^2) on each axis.
    - `scale` s: a modality of a sample times 1 + N(0, s^2).
    - `shift` s: N(0, s^2) added to each feature, constant over time.
    - `noise` n: N(0, n^2) added to every value.

    Padding stays exactly 0: what stands before the `lengths` (B,) of a modality, or the leading all-zero steps of one
    that has none. Times in padding read 0.

    Everything is drawn on the device of x, from `generator` (None: torch's default one there).
    """
    first = next(iter(x.values()))
    batch = len(first)
    changed, shaken = dict(x), bool(config.shift or config.noise)
    real = {m: _is_real(v, (lengths or {}).get(m)).to(v.dtype) for m, v in x.items()} if shaken else {}
    if config.crop or config.warp:
        ends = config.crop * first.new_empty(batch, 2).uniform_(-1, 1, generator=generator)
        bend = config.warp * first.new_empty(batch, 1).uniform_(-1, 1, generator=generator) / math.pi
        changed = {m: _retime(v, ends, bend) for m, v in changed.items()}
        real = {m: (_retime(v, ends, bend) > 0).to(v.dtype) for m, v in real.items()}
    for m, v in changed.items():
        if config.rotation and vectors.get(m) == 3:
            v = _rotate(v, _rotations(config.rotation * v.new_empty(batch, 3).normal_(generator=generator)))
        if config.scale:
            v = v * v.new_empty(batch, 1, 1).normal_(1, config.scale, generator=generator)
        if config.shift:
            v = v + v.new_empty(batch, 1, v.shape[2]).normal_(0, config.shift, generator=generator) * real[m]
        if config.noise:
            v = v + torch.empty_like(v).normal_(0, config.noise, generator=generator) * real[m]
        changed[m] = v
    return changed


def _is_real(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, T, 1) bool: False where a step of x (B, T, F) is padding."""
    if lengths is None:
        return x.any(2, keepdim=True).int().cumsum(1) > 0
    steps = x.shape[1]
    return (torch.arange(steps, device=x.device) >= steps - lengths[:, None])[..., None]


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
    """Rotation matrices (B, 3, 3) of rotation vectors (B, 3) in radians, by Rodrigues' formula.

    I + sin(a) / a K + (1 - cos(a)) / a^2 K^2, where a is the angle and K v' = v x v' for every v'.
    """
    axes = torch.eye(3, device=vectors.device, dtype=vectors.dtype)[None]
    turn = torch.linalg.cross(axes, vectors[:, None])
    angle = vectors.norm(dim=1)[:, None, None]
    once, twice = torch.sinc(angle / math.pi), torch.sinc(angle / (2 * math.pi)).square() / 2
    turns: Tensor = axes + once * turn + twice * (turn @ turn)
    return turns


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x (B, T, 3 V) with each triple of a sample turned by (B, 3, 3)."""
    triples = x.reshape(len(x), -1, 3)
    return (triples @ turn.transpose(1, 2)).reshape(x.shape)
