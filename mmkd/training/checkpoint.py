"""Checkpoint of a run: everything that is needed to resume, in one file."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.checksum import checksum_line, verify_checksum
from mmkd.files import write_atomically

State = dict[str, Any]


@dataclass
class Progress:
    """Progress of a run: `epoch` epochs are done, and `step` steps of the next.

    `sums` are the running sums of that epoch's loss terms, weighted by samples; `history` has one entry per epoch;
    `best` are the weights of the lowest validation loss.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


class CheckpointError(Exception):
    """A checkpoint that cannot be resumed from; the message names the file and the reason."""


def save_checkpoint(path: Path, identity: str, progress: Progress, parts: dict[str, State]) -> None:
    """Write progress, the parts' states and the random generators' to `path`, by rename, with a checksum."""
    state = {
        "identity": identity,
        "progress": vars(progress),
        "parts": parts,
        "cpu_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    content = _content(state)
    write_atomically(path, lambda temporary: _write(temporary, content, checksum_line(content)))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as `read_checkpoint` returns it."""

    progress: Progress
    parts: dict[str, State]
    cpu_rng: Tensor
    cuda_rng: list[Tensor]

    def restore_generators(self) -> None:
        """Restore the states of the random generators."""
        torch.set_rng_state(self.cpu_rng.cpu())
        if self.cuda_rng and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([state.cpu() for state in self.cuda_rng])


def read_checkpoint(path: Path, identity: str, device: torch.device) -> Checkpoint | None:
    """Read the checkpoint at `path`; None if there is none.

    Raises:
        CheckpointError: truncated, changed in a single bit, foreign, or of another configuration.
    """
    if not path.exists():
        return None
    try:
        # torch.load alone would accept changed bits: it compares none of the checksums in its zip file.
        state = torch.load(io.BytesIO(verify_checksum(path.read_bytes())), map_location=device, weights_only=True)
        if state["identity"] != identity:
            raise CheckpointError(f"{path}: belongs to another configuration")
        return Checkpoint(Progress(**state["progress"]), state["parts"], state["cpu_rng"], state["cuda_rng"])
    except CheckpointError:
        raise
    except Exception as error:  # torch's reader raises whatever a broken file leads it to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read ({reason})") from None


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a network's weights to `path`, by rename; their SHA-256 is in the result."""
    content = _content({name: value.detach().cpu() for name, value in weights.items()})
    write_atomically(path, lambda temporary: _write(temporary, content))


def _content(value: object) -> memoryview:
    # Through memory: torch puts a file's name into its content, so that equal weights would not be equal bytes.
    content = io.BytesIO()
    torch.save(value, content)
    return content.getbuffer()


def _write(path: Path, *parts: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
