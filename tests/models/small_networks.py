"""Sizes and inputs of the networks that are tested: three unaligned modalities, everything in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.config import Network
from mmkd.data import DatasetInfo

STEPS = {"video": 6, "audio": 5, "text": 3}
FEATURES = {"video": 4, "audio": 3, "text": 2}
STILL = {"embedding": 0.0, "attention": 0.0, "residual": 0.0, "relu": 0.0, "output": 0.0}


def make_info(steps: dict[str, int] = STEPS, classes: int = 3, features: dict[str, int] | None = None) -> DatasetInfo:
    return DatasetInfo(
        path=Path("small.h5"),
        modalities=tuple(steps),
        classes=tuple(str(c) for c in range(classes)),
        label_kind="class",
        score_range=None,
        vectors={},
        steps=steps,
        features=features or {m: FEATURES.get(m, 3) for m in steps},
        sizes={},
        class_counts={},
        source="",
        license="",
        notes="",
        fingerprint="",
        layout_version=1,
    )


def make_config(**changes: Any) -> Network:
    return Network.model_validate({"width": 8, "heads": 2, "layers": 3, "fusion_layers": 2, **changes})


def make_inputs(info: DatasetInfo, batch: int = 4, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        m: torch.randn(batch, info.steps[m], info.features[m], generator=generator, dtype=torch.float64)
        for m in info.modalities
    }


def stir(module: nn.Module, seed: int = 1) -> nn.Module:
    """`module` in float64 and evaluation mode, with parameters that are all random: biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module
