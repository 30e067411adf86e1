"""Losses on attention maps that are never held whole: a tile of query rows at a time, and its gradient at once.

A layer's map of 16 samples of 500 x 500 and 8 heads has 128 MB of probabilities, of which a loss needs a few rows at a
time. The sum of the tiles' losses is a scalar, whose gradient a later backward pass can only multiply: so each tile's
gradient in queries and keys is computed while its probabilities are in cache, and these are then discarded. On a GPU
kernels make maps and gradients without writing the heads' probabilities at all, see `fused_maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmkd.models import fused_maps
from mmkd.models.attention import attention_map
from mmkd.models.scores import Scores

TILE_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Bytes of one network's scores in a tile: about a core's cache, or enough to fill a GPU (see docs/performance.md)."""

WHOLE_BATCH_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
"""The same where a tile has all samples: it has few rows, and each tile adds to the gradient of all keys."""

FUSED_TILE_BYTES = 32 * 2**20
"""Bytes of a tile's map, a mean over heads, where kernels make it: thousands of blocks, and for EDAM-T, whose loss has
scores of each head, as much memory as a tile without kernels."""

TileLoss = Callable[[Tensor, Scores, slice], Tensor]
"""The summed loss, a scalar, of a tile of the student's map (b, rows, Tk), the teacher's scores of the same samples and
all rows (their map may have another size), and the rows."""

Tile = tuple[slice, slice]


def tiled_sum(
    loss: TileLoss,
    ours: Scores,
    theirs: Scores,
    learned: Sequence[Tensor] = (),
    *,
    temperature: float = 1.0,
    whole_batch: bool = False,
) -> Tensor:
    """The sum of `loss` over tiles of the student's map, a scalar whose gradient is computed along with it.

    Args:
        loss: evaluated exactly once per tile.
        ours: the student's scores; gradients reach their queries and keys.
        theirs: the teacher's, without gradients.
        learned: all other tensors that `loss` reads and that need a gradient.
        temperature: of the student's map, see `attention_map`.
        whole_batch: a tile has all samples, for losses that compare samples; else as few as make a tile.
    """
    parts = list(tiles(ours, whole_batch))
    if not torch.is_grad_enabled():
        maps = (attention_map(ours.samples(samples).rows(rows), temperature) for samples, rows in parts)
        tiled = [loss(a, theirs.samples(samples), rows) for a, (samples, rows) in zip(maps, parts, strict=True)]
        return torch.stack(tiled).sum()
    wanted = [tensor for tensor in learned if tensor.requires_grad]
    total: Tensor = _TiledSum.apply(  # type: ignore[no-untyped-call]
        loss, parts, temperature, ours.mask, theirs, ours.query, ours.key, *wanted
    )
    return total


def tiles(scores: Scores, whole_batch: bool) -> Iterator[Tile]:
    """(samples, rows) of tiles: whole samples if one fits in `TILE_BYTES`, else rows of one; or rows of all samples."""
    batch, heads, rows, _ = scores.query.shape
    row = heads * scores.key.shape[2] * scores.query.element_size()
    budgets = WHOLE_BATCH_BYTES if whole_batch else TILE_BYTES
    budget = budgets.get(scores.query.device.type, budgets["cpu"])
    if fused_maps.use_kernels(scores.query):
        row, budget = row // heads, FUSED_TILE_BYTES
    samples = batch if whole_batch else min(batch, max(1, budget // (row * rows)))
    height = min(rows, max(1, budget // (row * samples)))
    for sample in range(0, batch, samples):
        for first in range(0, rows, height):
            yield slice(sample, min(sample + samples, batch)), slice(first, min(first + height, rows))


class _TiledSum(torch.autograd.Function):
    """Autograd function of `tiled_sum`."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: TileLoss,
        parts: list[Tile],
        temperature: float,
        mask: Tensor | None,
        theirs: Scores,
        *inputs: Tensor,
    ) -> Tensor:
        query, key, *learned = inputs
        ours, theirs = Scores(query, key, mask).contiguous(), theirs.contiguous()
        total, others = query.new_zeros(()), [torch.zeros_like(tensor) for tensor in learned]
        maps = (_FusedMaps if fused_maps.use_kernels(query) else _Maps).of(ours, temperature, parts)
        for samples, rows in parts:
            tile = ours.samples(samples).rows(rows)
            a, kept = maps.make(tile)
            a.requires_grad_()
            with torch.enable_grad():
                value = loss(a, replace(theirs.samples(samples), space=maps.spare), rows)
            total += value.detach()
            outer, *new = torch.autograd.grad(value, [a, *learned])
            for other, gradient in zip(others, new, strict=True):
                other += gradient
            maps.add(tile, (samples, rows), kept, outer)
        ctx.save_for_backward(*maps.gradients(), *others)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, None, *(upstream * gradient for gradient in ctx.saved_tensors)


@dataclass(frozen=True)
class _Maps:
    """The student's maps by torch's operators, tile by tile, and the sums of their gradients in queries and keys."""

    temperature: float
    by_query: Tensor
    by_key: Tensor
    space: Tensor

    @classmethod
    def of(cls, ours: Scores, temperature: float, parts: list[Tile]) -> _Maps:
        """No maps yet; there is space for the largest tile's probabilities, twice."""
        (batch, heads, _, width), keys = ours.query.shape, ours.key.shape[2]
        by_query, by_key = torch.empty_like(ours.query), ours.query.new_zeros(batch * heads, width, keys)
        largest = max((samples.stop - samples.start) * (rows.stop - rows.start) for samples, rows in parts)
        space = ours.query.new_empty(2, largest * heads * keys)
        return cls(temperature, by_query, by_key, space)

    @property
    def spare(self) -> Tensor | None:
        """The second half of the space is the teacher's, until the student's gradient is written there."""
        return self.space[1]

    def make(self, tile: Scores) -> tuple[Tensor, Tensor]:
        """The tile's map (b, rows, Tk), and the input of `add`: each head's probabilities."""
        p = tile.probabilities(self.temperature, self.space[0])
        return p.sum(1).div_(tile.query.shape[1]), p

    def add(self, tile: Scores, part: Tile, p: Tensor, outer: Tensor) -> None:
        """Add the tile's part, of the gradient `outer` (b, rows, Tk) in its map."""
        (samples, rows), heads = part, tile.query.shape[1]
        slope = _through_softmax(p, outer / heads, self.space[1]).flatten(0, 1)
        self.by_query[samples, :, rows] = torch.bmm(slope, tile.key.flatten(0, 1)).view_as(tile.query)
        of_tile = self.by_key[samples.start * heads : samples.stop * heads]
        of_tile.baddbmm_(tile.query.flatten(0, 1).mT, slope)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """The gradients in queries and keys, once all tiles are added."""
        batch, heads, _, width = self.by_query.shape
        scale = width**-0.5 / self.temperature
        by_key = self.by_key.mT.reshape(batch, heads, -1, width)
        return self.by_query.mul_(scale), by_key.mul_(scale)


@dataclass(frozen=True)
class _FusedMaps:
    """The same by kernels, see `fused_maps`."""

    temperature: float
    by_query: Tensor
    by_key: Tensor
    spare: None = None

    @classmethod
    def of(cls, ours: Scores, temperature: float, parts: list[Tile]) -> _FusedMaps:
        """No maps yet."""
        return cls(temperature, torch.empty_like(ours.query), torch.zeros_like(ours.key))

    def make(self, tile: Scores) -> tuple[Tensor, Tensor]:
        """The tile's map (b, rows, Tk), and the input of `add`: each row's normaliser."""
        return fused_maps.mean_map(tile, self.temperature)

    def add(self, tile: Scores, part: Tile, normaliser: Tensor, outer: Tensor) -> None:
        """Add the tile's part, of the gradient `outer` (b, rows, Tk) in its map."""
        samples, rows = part
        by_query, by_key = self.by_query[samples, :, rows], self.by_key[samples]
        fused_maps.gradients(tile, self.temperature, normaliser, outer, by_query, by_key)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """The gradients in queries and keys, once all tiles are added."""
        return self.by_query, self.by_key


def _through_softmax(p: Tensor, outer: Tensor, space: Tensor) -> Tensor:
    """dL/ds = p (g - sum p g) of p = softmax s (B, heads, rows, Tk) with g = dL/dp (B, rows, Tk) for all heads."""
    slope = torch.mul(p, outer[:, None], out=space[: p.numel()].view(p.shape))
    return slope.addcmul_(p, slope.sum(-1, keepdim=True), value=-1)
