"""Splits of a data set as tensors, on the device or in the host's memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmkd.data import DatasetInfo, read_split

Part = Tensor | slice
"""Some samples of a split: their indices (B,), or a slice."""

Drawn = tuple[Part, dict[str, Tensor], Tensor]
"""A part with its inputs and labels, all on the device that computes."""

TRIALS_PER_GPU = "MMKD_TRIALS_PER_GPU"
"""The variable that says how many trials share a GPU; its memory is divided by it."""
SHARE = 0.5
"""Largest share of the device's free memory for a split; the rest is for networks, steps and the other splits."""


@dataclass(frozen=True)
class Samples:
    """One split: x[modality] (N, T_m, F_m) float32 standardised, y (N,), scores (N,) or None, ids, groups or [].

    `lengths` are the real steps of each modality, (N,) beside the labels; a modality that is left out has padding in
    its leading all-zero steps.

    Labels are on the device that computes. So are the inputs; or, `in_host_memory`, each batch is copied there.
    """

    x: dict[str, Tensor]
    y: Tensor
    scores: Tensor | None
    ids: list[str]
    in_host_memory: bool = False
    groups: list[str] = field(default_factory=list)
    lengths: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    def at(self, part: Part) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of the part, on the device of the labels."""
        if not self.in_host_memory:
            return {m: x[part] for m, x in self.x.items()}, self.y[part]
        chosen, device = part.cpu() if isinstance(part, Tensor) else part, self.y.device
        return {m: gather(x, chosen).to(device, non_blocking=True) for m, x in self.x.items()}, self.y[part]

    def draw(self, parts: Iterable[Part]) -> Iterator[Drawn]:
        """`at` each of `parts` in turn; if inputs are in the host's memory, the next part is copied meanwhile."""
        if self.in_host_memory:
            yield from copied_ahead(self, parts)
            return
        for part in parts:
            placed = part.to(self.y.device) if isinstance(part, Tensor) else part
            yield placed, *self.at(placed)


def load_samples(
    info: DatasetInfo,
    split: str,
    modalities: Sequence[str],
    device: torch.device,
    *,
    in_host_memory: bool | None = None,
) -> Samples:
    """Read one split of a data set, in order; on the device if it `fits` there, unless `in_host_memory` is given.

    The parts are those of the split that `info` was divided by, see `mmkd.data.divide`.

    Raises:
        UserError: the file or the split cannot be used.
    """
    data = read_split(info, split, modalities)
    x = {m: torch.from_numpy(data.arrays[m]) for m in modalities}
    if in_host_memory is None:
        neighbours = max(1, int(os.environ.get(TRIALS_PER_GPU, "1")))
        free = torch.cuda.mem_get_info(device)[0] // neighbours if device.type == "cuda" else None
        in_host_memory = not fits(sum(value.nbytes for value in x.values()), free)
    return Samples(
        x if in_host_memory else {m: value.to(device) for m, value in x.items()},
        torch.from_numpy(data.labels).to(device),
        None if data.scores is None else torch.from_numpy(data.scores),
        data.ids,
        in_host_memory,
        data.groups,
        {m: torch.from_numpy(data.lengths[m]).to(device) for m in modalities},
    )


def fits(needed: int, free: int | None) -> bool:
    """True if a split of `needed` bytes is to be held by a device with `free` bytes; None: the device is the host."""
    return free is None or needed <= SHARE * free


def gather(x: Tensor, part: Part) -> Tensor:
    """x[part] in the host's memory; page-locked if there is CUDA, so that copying to it need not wait."""
    pinned = torch.cuda.is_available()
    if isinstance(part, slice):
        return x[part].pin_memory() if pinned else x[part]
    made = torch.empty(len(part), *x.shape[1:], dtype=x.dtype, pin_memory=pinned)
    return torch.index_select(x, 0, part, out=made)


def copied_ahead(samples: Samples, parts: Iterable[Part]) -> Iterator[Drawn]:
    """`Samples.draw` for inputs in the host's memory: each copy begins before the previous part is yielded.

    On CUDA copies run on a separate stream, beside the current step.
    """
    device = samples.y.device
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None
    waiting: tuple[Drawn, torch.cuda.Event | None] | None = None
    for part in parts:
        with nullcontext() if copying is None else torch.cuda.stream(copying):
            placed = part.to(device) if isinstance(part, Tensor) else part
            begun: Drawn = (placed, *samples.at(part))
            done = None if copying is None else copying.record_event()
        if waiting is not None:
            yield arrived(*waiting)
        waiting = begun, done
    if waiting is not None:
        yield arrived(*waiting)


def arrived(drawn: Drawn, done: torch.cuda.Event | None) -> Drawn:
    """Make the device wait for the copies of `drawn` to be `done` before any later work."""
    if done is not None:
        part, x, y = drawn
        current = torch.cuda.current_stream(y.device)
        current.wait_event(done)
        for tensor in (part, y, *x.values()):
            if isinstance(tensor, Tensor):
                tensor.record_stream(current)  # keeps its memory until this stream has used it
    return drawn


def epoch_batches(samples: int, size: int, seed: int, epoch: int) -> list[Tensor]:
    """Indices of the samples of each training batch: a permutation that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return list(torch.randperm(samples, generator=generator).split(size))


def chunks(samples: int, size: int) -> Iterator[slice]:
    """Consecutive slices of `size` samples."""
    return (slice(start, start + size) for start in range(0, samples, size))
