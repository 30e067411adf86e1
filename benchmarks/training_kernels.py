"""Whether the Triton kernels pay: loss and gradient of one layer's maps at MOSEI's sizes, with them and without.

`python benchmarks/training_kernels.py` on a GPU prints the median time of a turn by the GPU's clock, the memory that a
turn adds at its peak, and how far loss and gradients are from those without kernels, relative to the largest element.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor
from training_tiles import EMBEDDING, HEADS, KEYS, OURS, THEIRS, crd, edam

from mmkd.distillation._tiles import TileLoss, tiled_sum
from mmkd.distillation.crd import Embedding
from mmkd.models import fused_maps
from mmkd.models.scores import Scores


def scores(samples: int, rows: int, width: int) -> Scores:
    """Of one layer, laid out as a network makes them."""
    query, key = (torch.randn(samples, steps, HEADS, width, device="cuda").transpose(1, 2) for steps in (rows, KEYS))
    return Scores(query, key)


def measure(turn: Callable[[], Sequence[Tensor]], turns: int) -> tuple[float, float, Sequence[Tensor]]:
    """Median ms of a turn, MiB that it adds at its peak, and what it returns."""
    found = turn()  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(turns):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        turn()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return median(times), (torch.cuda.max_memory_allocated() - before) / 2**20, found


def evaluate(
    loss: TileLoss, ours: Scores, theirs: Scores, learned: list[Tensor], whole_batch: bool, kernels: bool
) -> list[Tensor]:
    """The loss and its gradients."""
    fused_maps.use_kernels = lambda query: kernels
    total = tiled_sum(loss, ours, theirs, learned, whole_batch=whole_batch)
    return [total.detach(), *torch.autograd.grad(total, [ours.query, ours.key, *learned])]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available() or not fused_maps.use_kernels(torch.empty(1, 1, 1, OURS, device="cuda")):
        print("error: there is no GPU here on which the kernels work", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    heads = [Embedding(KEYS, EMBEDDING).cuda() for _ in range(2)]
    learned: list[Tensor] = [parameter for head in heads for parameter in head.parameters()]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {options.rows} rows, {KEYS} keys, {HEADS} heads")
    for samples in options.batches:
        ours, theirs = scores(samples, options.rows, OURS), scores(samples, options.rows, THEIRS)
        ours.query.requires_grad_()
        ours.key.requires_grad_()
        labels = torch.arange(samples, device="cuda") % 7
        for name, loss, wanted, whole in (
            ("edam", edam, [], False),
            ("crd", partial(crd, heads, labels), learned, True),
        ):
            turns = [partial(evaluate, loss, ours, theirs, wanted, whole, kernels) for kernels in (False, True)]
            (slow, large, expected), (fast, small, found) = (measure(turn, options.turns) for turn in turns)
            off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
            print(f"{name:5} batch {samples:3}: without {slow:8.2f} ms, {large:6.0f} MiB; ", end="")
            print(f"kernels {fast:8.2f} ms, {small:6.0f} MiB; {slow / fast:.1f} times as fast; off by {off:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
