"""Attention scores as the product of queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Attention scores (B, heads, Tq, Tk) before softmax, kept as a product: nothing of size Tq Tk is held.

    `query` is (B, heads, Tq, d), `key` (B, heads, Tk, d); `mask` (Tq, Tk) is True where a key is visible, None if all
    are. `space`, flat, is scratch memory for `attention_map`, used if it is large enough.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None = None
    space: Tensor | None = None

    def dense(self, temperature: float = 1.0) -> Tensor:
        """The scores themselves, scaled by 1 / (sqrt(d) temperature), -inf where hidden."""
        scores: Tensor = self.query * (self.query.shape[-1] ** -0.5 / temperature) @ self.key.transpose(-1, -2)
        return scores if self.mask is None else scores.masked_fill(~self.mask, -math.inf)

    def probabilities(self, temperature: float, out: Tensor) -> Tensor:
        """Each head's softmax of `dense`, written into the beginning of `out` (flat), without gradients."""
        shape = (*self.query.shape[:3], self.key.shape[2])
        made = out[: math.prod(shape)].view(shape)
        scaled = self.query * (self.query.shape[-1] ** -0.5 / temperature)
        torch.bmm(scaled.flatten(0, 1), self.key.flatten(0, 1).transpose(1, 2), out=made.flatten(0, 1))
        if self.mask is not None:
            made.masked_fill_(~self.mask, -math.inf)
        return torch.softmax(made, -1, out=made)

    def rows(self, chosen: slice | Tensor) -> Scores:
        """The scores of some query rows."""
        mask = None if self.mask is None else self.mask[chosen]
        return replace(self, query=self.query[:, :, chosen], mask=mask)

    def samples(self, chosen: slice) -> Scores:
        """The scores of some samples."""
        return replace(self, query=self.query[chosen], key=self.key[chosen])

    def contiguous(self) -> Scores:
        """The same scores with contiguous factors, so that their many products do not each copy them."""
        return replace(self, query=self.query.contiguous(), key=self.key.contiguous())

    @property
    def wants_gradient(self) -> bool:
        """True if operations on them are recorded for a backward pass."""
        return torch.is_grad_enabled() and (self.query.requires_grad or self.key.requires_grad)
