"""Dropout whose masks are cheap to draw on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """`torch.nn.Dropout`: in training each value is 0 with probability p, else divided by 1 - p.

    On a CPU, torch draws a mask value by value, each from 64 random bits, which took a sixth of a step's time. Here a
    value takes 16 of them, so p is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.device.type != "cpu" or not self.training or not self.p:
            return F.dropout(x, self.p, self.training)
        return x * keep_mask(x, self.p)


def keep_mask(x: Tensor, p: float) -> Tensor:
    """A mask of the shape and dtype of x, on the CPU: 0 with probability p, else 1 / (1 - p)."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    # In place, because torch's loops that write booleans are several times slower.
    return bits.ge_(round(p * 2**16) - 2**15).to(x.dtype).mul_(1 / (1 - p))
