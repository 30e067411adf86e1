"""Slow and obvious: attention maps and losses between them in float64, number by number. Shares no code with mmkd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

RowLoss = Callable[[list[Tensor], list[Tensor]], Tensor]


def total(values: list[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for value in values:
        result = result + value
    return result


def softmax(values: list[Tensor], t: float = 1.0) -> list[Tensor]:
    """Hidden entries are -inf and become 0."""
    finite = [v for v in values if v != -math.inf]
    largest = max(float(v.detach()) for v in finite)
    weights = [torch.exp((v - largest) / t) if v != -math.inf else None for v in values]
    norm = total([w for w in weights if w is not None])
    return [torch.zeros((), dtype=torch.float64) if w is None else w / norm for w in weights]


def map_row(scores: Tensor, sample: int, row: int, t: float) -> list[Tensor]:
    """One row of the map of scores (B, heads, Tq, Tk): a softmax a head, then the mean over heads."""
    heads = [softmax(list(scores[sample, head, row]), t) for head in range(scores.shape[1])]
    return [total([head[column] for head in heads]) / len(heads) for column in range(scores.shape[3])]


def map_loss(pairs: list[list[tuple[Tensor, Tensor]]], row_loss: RowLoss, t: float) -> Tensor:
    """The mean over rows, then layers, then pairs; `pairs` holds (student's, teacher's) scores by pair and layer."""
    by_pair = []
    for layers in pairs:
        by_layer = []
        for ours, theirs in layers:
            rows = [
                row_loss(map_row(ours, sample, row, t), map_row(theirs, sample, row, t))
                for sample in range(ours.shape[0])
                for row in range(ours.shape[2])
            ]
            by_layer.append(total(rows) / len(rows))
        by_pair.append(total(by_layer) / len(by_layer))
    return total(by_pair) / len(by_pair)


def cross_entropy(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """-sum a log b, without the terms where b is 0."""
    return -total([p * torch.log(q) for p, q in zip(a, b, strict=True) if q > 0])


def kullback_leibler(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """sum a log(a / b), without the terms where a is 0."""
    return total([p * (torch.log(p) - torch.log(q)) for p, q in zip(a, b, strict=True) if p > 0])


def jensen_shannon(a: list[Tensor], b: list[Tensor]) -> Tensor:
    middle = [(p + q) / 2 for p, q in zip(a, b, strict=True)]
    return (kullback_leibler(a, middle) + kullback_leibler(b, middle)) / 2


def scaled_squared_error(a: list[Tensor], b: list[Tensor]) -> Tensor:
    n = len(a)
    return total([(n * p - n * q) ** 2 for p, q in zip(a, b, strict=True)]) / n


def cosine_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    dot = total([p * q for p, q in zip(a, b, strict=True)])
    return 1 - dot / torch.sqrt(total([p * p for p in a]) * total([q * q for q in b]))


def stretch(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (Tq', Tq) and columns (Tk', Tk) on scores (B, heads, Tq, Tk)."""
    return torch.einsum("ai,bhij,cj->bhac", rows, scores, columns)


def interpolation(old: int, new: int) -> Tensor:
    """Linear interpolation between the centres of `old` equal cells at the centres of `new`, the ends held."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        before = min(math.floor(place), old - 1)
        after = min(before + 1, old - 1)
        matrix[i, before] += 1 - (place - before)
        matrix[i, after] += place - before
    return matrix
