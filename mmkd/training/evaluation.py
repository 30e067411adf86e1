"""Evaluate a network on a split: predictions and metrics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmkd.data import DatasetInfo
from mmkd.data.tensors import Samples, chunks
from mmkd.metrics import classification_metrics, score_metrics
from mmkd.models.network import Network
from mmkd.result_file import Predictions

EVALUATION_BATCH = 256


@torch.no_grad()
def predict(network: Network, samples: Samples) -> Tensor:
    """Logits (N, C) in evaluation mode, on the CPU; the network's mode is restored."""
    was_training = network.training
    network.eval()
    parts = samples.draw(chunks(len(samples), EVALUATION_BATCH))
    logits = [network(x).logits.float().cpu() for _, x, _ in parts]
    network.train(was_training)
    return torch.cat(logits)


def evaluate(network: Network, samples: Samples, info: DatasetInfo) -> tuple[dict[str, float], Predictions]:
    """Metrics of a split (see `mmkd.metrics`; MulT's too where labels are scores) and the predictions behind them."""
    predictions = Predictions(
        predict(network, samples).numpy(),
        samples.y.cpu().numpy(),
        samples.ids,
        None if samples.scores is None else samples.scores.numpy(),
        samples.groups,
    )
    commonest = int(np.argmax(info.class_counts["train"]))
    metrics = classification_metrics(predictions.logits, predictions.labels, commonest)
    if predictions.scores is not None and info.score_range is not None:
        centres = np.linspace(*info.score_range, len(info.classes))
        metrics |= score_metrics(predictions.logits, predictions.scores, centres)
    return metrics, predictions
