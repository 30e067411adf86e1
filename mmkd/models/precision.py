"""Precision of networks in training: float32, or bfloat16 where torch's autocast allows it.

Weights, their gradients and the optimiser are float32 either way, and so are losses and attention maps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmkd.config import Precision
from mmkd.models.attention import Tapped
from mmkd.models.scores import Scores


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a network's forward pass; pass its outputs to `in_float32`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def in_float32(tensor: Tensor) -> Tensor:
    """A bfloat16 tensor in float32; any other as it is."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def tapped_in_float32(tapped: dict[str, Tapped]) -> dict[str, Tapped]:
    """All tapped results in float32."""
    return {
        name: Tapped(
            [_factors(scores) for scores in seen.factors],
            [in_float32(scores) for scores in seen.scores],
            [in_float32(attended) for attended in seen.attended],
        )
        for name, seen in tapped.items()
    }


def _factors(scores: Scores) -> Scores:
    return replace(scores, query=in_float32(scores.query), key=in_float32(scores.key))
