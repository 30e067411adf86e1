"""Which height of tiles pays: loss and gradient of rows of one layer's maps at MOSEI's sizes, by the bytes of a tile.

`python benchmarks/training_tiles.py` prints the processor time of one thread, the median of turns in which every size
takes part, so that other work on the machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial

import torch
from torch import Tensor

from mmkd.distillation import _tiles
from mmkd.distillation._maps import safe_log
from mmkd.distillation.crd import Embedding, around_zero, in_batch_loss
from mmkd.models.attention import attention_map
from mmkd.models.scores import Scores

SAMPLES, HEADS, KEYS, EMBEDDING = 16, 8, 500, 128
OURS, THEIRS = 8, 6
"""Widths of a head of student and teacher."""


def factor(steps: int, width: int) -> Tensor:
    """Queries or keys (SAMPLES, HEADS, steps, width), laid out as a network makes them."""
    return torch.randn(SAMPLES, steps, HEADS, width).transpose(1, 2)


def edam(a: Tensor, theirs: Scores, rows: slice) -> Tensor:
    """EDAM's loss of a tile."""
    return -(a * safe_log(attention_map(theirs.rows(rows)))).sum()


def crd(heads: list[Embedding], labels: Tensor, a: Tensor, theirs: Scores, rows: slice) -> Tensor:
    """CRD's loss of a tile."""
    b = attention_map(theirs.rows(rows))
    u, v = (head(around_zero(maps)).transpose(0, 1) for head, maps in zip(heads, (a, b), strict=True))
    return in_batch_loss(u, v, labels, 0.07, True) * a.shape[1]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--mib", type=float, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = Scores(factor(options.rows, OURS).requires_grad_(), factor(KEYS, OURS).requires_grad_())
    theirs = Scores(factor(options.rows, THEIRS), factor(KEYS, THEIRS))
    heads = [Embedding(KEYS, EMBEDDING) for _ in range(2)]
    learned = [parameter for head in heads for parameter in head.parameters()]
    losses = {"edam": (edam, [], False), "crd": (partial(crd, heads, torch.arange(SAMPLES) % 7), learned, True)}
    times: dict[tuple[str, float], list[float]] = {(name, mib): [] for name in losses for mib in options.mib}
    for _ in range(1 + options.turns):
        for (name, mib), spent in times.items():
            loss, wanted, whole = losses[name]
            budgets = _tiles.WHOLE_BATCH_BYTES if whole else _tiles.TILE_BYTES
            budgets["cpu"] = int(mib * 2**20)
            began = time.process_time()
            _tiles.tiled_sum(loss, ours, theirs, wanted, whole_batch=whole).backward()
            spent.append(1e3 * (time.process_time() - began))
    for (name, mib), (_, *spent) in times.items():  # the first turn warms up
        print(f"{name:5} {mib:5g} MiB {statistics.median(spent):8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
