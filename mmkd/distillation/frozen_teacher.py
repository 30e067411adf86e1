"""The trained teacher that a method distils from: frozen, in evaluation mode."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmkd.config import Precision
from mmkd.distillation.teacher_cache import OutputStore
from mmkd.models.attention import Tapped, Taps
from mmkd.models.network import Network, Outputs, autocast, tapped_in_float32

REMEMBERING_BATCH = 256
"""Batch size for running a teacher on all of train."""


@dataclass(frozen=True)
class Batch:
    """A training batch: x[modality] (B, T_m, F_m), labels y (B,), and each sample's index in train (B,)."""

    x: Mapping[str, Tensor]
    y: Tensor
    index: Tensor


class FrozenTeacher:
    """A trained teacher: in evaluation mode, without gradients, run only as far as needed.

    `store` keeps its outputs on train for later trials; None: they are not kept. `precision` is that of `tap`, at every
    step; `outputs` are in float32, for all trials.
    """

    def __init__(self, network: Network, store: OutputStore | None = None) -> None:
        self.network, self.store = network.eval().requires_grad_(False), store
        self.precision: Precision = "fp32"
        self._train: Mapping[str, Tensor] = {}
        self._remembered: dict[frozenset[str], Outputs] = {}
        self._looks_up = False

    def remember(self, train: Mapping[str, Tensor], *, augmented: bool = False) -> None:
        """Run the teacher on train, x[modality] (N, T_m, F_m), once per view, when the view is first needed.

        Logits and last hidden layers are small (19 MB for MOSEI); the results of `tap` are not, and are never kept.
        With `augmented` a batch is not `train` at `batch.index`, and `outputs` computes.
        """
        self._train, self._looks_up, self._remembered = train, not augmented, {}

    @torch.no_grad()
    def tap(self, x: Mapping[str, Tensor], taps: Mapping[str, Taps]) -> dict[str, Tapped]:
        """See `Network.tap`."""
        device = next(self.network.parameters()).device
        with autocast(self.precision, device):
            tapped = self.network.tap(x, taps)
        return tapped_in_float32(tapped)

    @torch.no_grad()
    def outputs(self, batch: Batch, kept: Collection[str] | None = None) -> Outputs:
        """Logits and last hidden layer of the batch's samples: looked up after `remember`, else computed.

        Computed on the view that keeps the modalities `kept` and blanks the others (see `blank`); None: all are kept.
        """
        if not self._looks_up:
            outputs: Outputs = self.network(blank(batch.x, batch.x if kept is None else kept))
            return outputs
        known = self.on_train(kept)
        return Outputs(known.logits[batch.index], known.penultimate[batch.index], {}, {})

    @torch.no_grad()
    def on_train(self, kept: Collection[str] | None = None) -> Outputs:
        """`outputs` of all of train, (N, ...), never augmented."""
        view = frozenset(self._train if kept is None else kept)
        if view not in self._remembered:
            device = next(self.network.parameters()).device
            compute = partial(self._run_in_parts, self._train, view, device)
            found = compute() if self.store is None else self.store.fetch(self._train, view, device, compute)
            self._remembered[view] = found
        return self._remembered[view]

    def _run_in_parts(self, x: Mapping[str, Tensor], kept: Collection[str], device: torch.device) -> Outputs:
        # If train is in the host's memory, its parts are not on the device yet.
        parts = zip(*(value.split(REMEMBERING_BATCH) for value in x.values()), strict=True)
        views = (blank({m: v.to(device) for m, v in zip(x, part, strict=True)}, kept) for part in parts)
        outputs = [self.network(view) for view in views]
        return Outputs(torch.cat([o.logits for o in outputs]), torch.cat([o.penultimate for o in outputs]), {}, {})


def blank(x: Mapping[str, Tensor], kept: Collection[str]) -> dict[str, Tensor]:
    """x[modality] (B, T_m, F_m) with zeros for all modalities except `kept`.

    Inputs are standardised, so that zeros are the features' means over train. A modality is then blank, not absent:
    its projection, its stacks and the attention to it are computed as ever.
    """
    return {m: value if m in kept else torch.zeros_like(value) for m, value in x.items()}
