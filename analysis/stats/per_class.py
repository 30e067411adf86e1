"""Precision, recall and F1 of each class, from the stored predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.loading.predictions import predictions
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.metrics import confusion_counts
from mmkd.records import RowRecord, read_record
from mmkd.rundir import RowDir


def per_class(runs: Runs, study: str) -> pd.DataFrame:
    """One line per class of each row of the study that has a score.

    Columns: row, label, class (number), name, samples (of the class in test), seeds, and precision, recall and f1 as
    means over seeds, each with its sample standard deviation as `<metric>_sd`. Precision is NaN where the class was
    never predicted, recall where it does not occur.

    Raises:
        UserError: there is no such study, or a file of it is broken.
    """
    rows = collect(runs, study).rows
    return pd.DataFrame([line for row in rows if len(row.measured) for line in _lines(runs, row)])


def _lines(runs: Runs, row: RowRuns) -> Iterator[dict[str, Any]]:
    names = read_record(RowDir(runs.root / "rows" / row.spec.directory).row, RowRecord).data.classes
    outputs = [predictions(runs.root / directory)["test"] for directory in row.measured["directory"]]
    confusions = np.stack([confusion_counts(o.labels, o.logits.argmax(axis=1), o.logits.shape[1]) for o in outputs])
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    true, predicted = confusions.sum(axis=2), confusions.sum(axis=1)
    with np.errstate(invalid="ignore"):
        metrics = {"precision": hits / predicted, "recall": hits / true, "f1": 2 * hits / (true + predicted)}
    for number in range(confusions.shape[1]):
        values = {name: pd.Series(by_seed[:, number]) for name, by_seed in metrics.items()}
        yield {
            "row": row.spec.name,
            "label": row.spec.label,
            "class": number,
            "name": names[number] if number < len(names) else str(number),
            "samples": int(true[0, number]),
            "seeds": len(outputs),
            **{name: series.mean() for name, series in values.items()},
            **{f"{name}_sd": series.std() for name, series in values.items()},
        }
