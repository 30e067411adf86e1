"""A data set's splits as tensors, where they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmkd.data import read_split


@dataclass(frozen=True)
class Samples:
    """One split on a device: x[modality] (N, T_m, F_m) float32 standardised, y (N,), scores (N,) or None, ids."""

    x: dict[str, Tensor]
    y: Tensor
    scores: Tensor | None
    ids: list[str]

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and labels of the samples at `index` (B,)."""
        return {m: x[index] for m, x in self.x.items()}, self.y[index]


def load_samples(path: Path | str, split: str, modalities: Sequence[str], device: torch.device) -> Samples:
    """One split of a data set, read once.

    Raises:
        UserError: the file or the split cannot be used.
    """
    data = read_split(Path(path), split, modalities)
    return Samples(
        {m: torch.from_numpy(data.arrays[m]).to(device) for m in modalities},
        torch.from_numpy(data.labels).to(device),
        None if data.scores is None else torch.from_numpy(data.scores),
        data.ids,
    )


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples | None]:
    """`samples` without a share of each class (one sample of a class stays in any case), and that share; None if empty.

    The labels and their order alone decide which: the same for every row, trial and seed on a data set.
    """
    labels = samples.y.cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        held[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    if not held.any():
        return samples, None
    return _select(samples, ~held), _select(samples, held)


def _select(samples: Samples, chosen: Tensor) -> Samples:
    """The samples where `chosen` (N,) is True, in their order."""
    places = chosen.nonzero().flatten()
    x, y = samples.at(places.to(samples.y.device))
    scores = None if samples.scores is None else samples.scores[places]
    return Samples(x, y, scores, [samples.ids[place] for place in places.tolist()])


def epoch_batches(samples: int, size: int, seed: int, epoch: int) -> list[Tensor]:
    """Places of the samples of each training batch: a permutation that seed and epoch alone decide."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return list(torch.randperm(samples, generator=generator).split(size))


def chunks(samples: int, size: int) -> Iterator[slice]:
    """Consecutive slices of `size` samples."""
    return (slice(start, start + size) for start in range(0, samples, size))
