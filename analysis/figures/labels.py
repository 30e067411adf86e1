"""Labels of metrics in figures."""

from __future__ import annotations

from typing import NamedTuple

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
NAMES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1"}
SHARES = ("accuracy", "weighted_f1", "macro_f1", "majority_share")


class Shown(NamedTuple):
    """An axis label, and what values are multiplied by to be in its unit."""

    label: str
    factor: float


def shown(metric: str) -> Shown:
    """The label of `<split>_<metric>`: `valid_accuracy` is "validation accuracy (%)", in per cent."""
    split, _, name = metric.partition("_")
    if split not in SPLITS:
        return Shown(metric.replace("_", " "), 1.0)
    label = f"{SPLITS[split]} {NAMES.get(name, name.replace('_', ' '))}"
    return Shown(f"{label} (%)", 100.0) if name in SHARES else Shown(label, 1.0)
