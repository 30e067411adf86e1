"""Split train: the part that is held out of training."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.data.tensors import Samples


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples | None]:
    """Split `samples` into the rest and a share of each class; the share is None if empty.

    At least one sample of each class stays in the rest. The choice depends on the labels and their order alone: it is
    the same for every row, trial and seed on a data set.
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
    positions = chosen.nonzero().flatten()
    x = {m: value[positions.to(value.device)] for m, value in samples.x.items()}
    y, scores = samples.y[positions.to(samples.y.device)], None if samples.scores is None else samples.scores[positions]
    ids, groups = ([names[n] for n in positions.tolist()] if names else [] for names in (samples.ids, samples.groups))
    lengths = {m: value[positions.to(value.device)] for m, value in samples.lengths.items()}
    return Samples(x, y, scores, ids, samples.in_host_memory, groups, lengths)
