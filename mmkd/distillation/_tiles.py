"""Losses on attention maps that are never held whole: a tile of query rows at a time, and its gradient at once.

A map of B samples, H heads, Tq queries and Tk keys has B H Tq Tk probabilities (128 MB for 16 samples of 500 x 500 and
8 heads, a layer and network), of which a loss needs a few rows at a time. So it is evaluated tile by tile, and because
the sum of the tiles' losses is a scalar, whose gradient a later backward pass can only multiply, each tile's gradient
in queries and keys is computed while its probabilities are there: they are made once, in cache, and then discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmkd.models.attention import Scores

TILE_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Bytes of one network's scores in a tile: about a core's cache, or enough to fill a GPU (see docs/performance.md)."""

TileLoss = Callable[[Scores, Scores, slice], Tensor]
"""The summed loss, a scalar, of the student's scores of a tile (some samples, some rows), the teacher's of the same
samples and all rows (their maps may have another size), and the rows."""

Tile = tuple[slice, slice]


def tiled_sum(
    loss: TileLoss, ours: Scores, theirs: Scores, learned: Sequence[Tensor] = (), *, whole_batch: bool = False
) -> Tensor:
    """The sum of `loss` over tiles of the student's scores, a scalar whose gradient is computed along with it.

    Args:
        loss: evaluated exactly once a tile.
        ours: the student's scores; gradients reach their queries and keys.
        theirs: the teacher's, without gradients.
        learned: all other tensors that `loss` reads and that want a gradient.
        whole_batch: a tile has all samples, for losses that compare samples; else as few as make a tile.
    """
    parts = list(tiles(ours, whole_batch))
    if not torch.is_grad_enabled():
        tiled = [loss(ours.samples(samples).rows(rows), theirs.samples(samples), rows) for samples, rows in parts]
        return torch.stack(tiled).sum()
    wanted = [tensor for tensor in learned if tensor.requires_grad]
    total: Tensor = _TiledSum.apply(loss, parts, ours.mask, theirs, ours.query, ours.key, *wanted)  # type: ignore[no-untyped-call]
    return total


def tiles(scores: Scores, whole_batch: bool) -> Iterator[Tile]:
    """(samples, rows) of tiles of about `TILE_BYTES`: whole samples if one fits, else rows of one, or rows of all."""
    batch, heads, rows, _ = scores.query.shape
    row = heads * scores.key.shape[2] * scores.query.element_size()
    budget = TILE_BYTES.get(scores.query.device.type, TILE_BYTES["cpu"])
    samples = batch if whole_batch else min(batch, max(1, budget // (row * rows)))
    height = min(rows, max(1, budget // (row * samples)))
    for sample in range(0, batch, samples):
        for first in range(0, rows, height):
            yield slice(sample, min(sample + samples, batch)), slice(first, min(first + height, rows))


class _TiledSum(torch.autograd.Function):
    """See `tiled_sum`."""

    @staticmethod
    def forward(
        ctx: Any, loss: TileLoss, parts: list[Tile], mask: Tensor | None, theirs: Scores, *inputs: Tensor
    ) -> Tensor:
        query, key, *learned = inputs
        total, gradients = query.new_zeros(()), [torch.zeros_like(tensor) for tensor in inputs]
        for samples, rows in parts:
            tile = Scores(query, key, mask).samples(samples).rows(rows)
            leaves = [factor.detach().requires_grad_() for factor in (tile.query, tile.key)]
            with torch.enable_grad():
                value = loss(Scores(leaves[0], leaves[1], tile.mask), theirs.samples(samples), rows)
            total += value.detach()
            places = [gradients[0][samples, :, rows], gradients[1][samples], *gradients[2:]]
            for place, new in zip(places, torch.autograd.grad(value, [*leaves, *learned]), strict=True):
                place += new
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *(upstream * gradient for gradient in ctx.saved_tensors)
