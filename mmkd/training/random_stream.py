"""A random stream for a part of a run, so that what it draws does not move the draws of the others."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor


class RandomStream:
    """torch's default generators, for one part of a run: within `with stream:` they continue its own draws.

    Outside, they are as if nothing had been drawn within. May be entered while it is entered.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device, self._depth = device, 0
        self._outside = _read(device)
        torch.manual_seed(seed)
        self._within = _read(device)
        _write(self._outside, device)

    def __enter__(self) -> None:
        if self._depth == 0:
            self._outside = _read(self.device)
            _write(self._within, self.device)
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._within = _read(self.device)
            _write(self._outside, self.device)

    def state_dict(self) -> dict[str, Any]:
        """The state of the stream, for a checkpoint."""
        return {"states": self._within}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self._within = [value.cpu() for value in state["states"]]


def _read(device: torch.device) -> list[Tensor]:
    """The states of the generators that a run on `device` draws from: the CPU's, and CUDA's if that is the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _write(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
