"""An untuned linear classifier on each modality and on all of them: what a teacher must beat.

    python benchmarks/linear_baseline.py utd.h5

Multinomial logistic regression on standardised sequences, flattened, with the weight decay that scikit-learn's default
C = 1 is; trained on train, seen on valid and test. Nothing is chosen, so reading test does no harm.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.data import read_info, read_split


def features(path: Path, split: str, modalities: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Flattened sequences of `modalities` side by side (N, D), and labels (N,)."""
    data = read_split(path, split, modalities)
    sequences = [torch.from_numpy(data.arrays[m]).flatten(1) for m in modalities]
    return torch.cat(sequences, 1), torch.from_numpy(data.labels)


def fit(x: Tensor, y: Tensor, classes: int) -> nn.Linear:
    """Minimise sum of cross-entropies + |W|^2 / 2 (C = 1) by L-BFGS, from zero."""
    model = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, reduction="sum") + model.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return model


def main(path: Path) -> None:
    """Print a line for each modality and one for all."""
    info = read_info(path)
    for modalities in [*([m] for m in info.modalities), list(info.modalities)]:
        model = fit(*features(path, "train", modalities), len(info.classes))
        accuracies = []
        for split in ("valid", "test"):
            x, y = features(path, split, modalities)
            accuracies.append(float((model(x).argmax(1) == y).float().mean()))
        print(f"{' + '.join(modalities):<40} valid {accuracies[0]:.3f}  test {accuracies[1]:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
