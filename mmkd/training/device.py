"""Choose the device, and set threads, seed and determinism."""

from __future__ import annotations

import os
import sys

import torch

from mmkd.config import Run
from mmkd.errors import UserError
from mmkd.provenance import gpus_given
from mmkd.terminal import printable


def default_device() -> torch.device:
    """A GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_torch(config: Run) -> torch.device:
    """Set threads, seed and determinism of torch, and choose the device.

    Warn if the job was given GPUs that torch does not see.

    Raises:
        UserError: device = "cuda" and there is no CUDA device.
    """
    torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but this machine shows no CUDA device; use 'auto' or 'cpu'")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "auto" and not cuda and (given := gpus_given()):
        warning = f"warning: this job was given GPUs ({given}) and torch sees none: it trains on the CPU"
        print(printable(f"{warning}; --device cuda fails instead"), file=sys.stderr, flush=True)
    # Only deterministic operations give the same bits after a resume; cuBLAS reads this before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it writes it, so filling it first is wasted time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at run time
    torch.manual_seed(config.seed)
    return torch.device("cuda" if cuda else "cpu")
