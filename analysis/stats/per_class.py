"""Precision, recall and F1 of each class, from the stored predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.loading.frames import Floats
from analysis.loading.outcomes import Outcome, outcome
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.metrics import confusion_counts
from mmkd.records import RowRecord, read_record
from mmkd.rundir import RowDir


def per_class(runs: Runs, study: str) -> pd.DataFrame:
    """One line per class of each row of the study that has a score.

    Columns: row, label, class (number), name, samples (of the class in test), seeds, and precision, recall and f1 as
    means over seeds, each with its sample standard deviation as `<metric>_sd` and the number of averaged seeds as
    `<metric>_n`. With replicates, a line also has their number in `replicates`, samples are those of all of them, and
    means and deviations are over replicates, of the mean over each one's seeds. A run has no precision for a class that
    it never predicts, and no recall for one that does not occur: the mean is of the others, NaN if there are none.

    Raises:
        UserError: there is no such study, or a file of it is broken.
    """
    rows = collect(runs, study).rows
    return pd.DataFrame([line for row in rows if len(row.measured) for line in _lines(runs, row)])


def _lines(runs: Runs, row: RowRuns) -> Iterator[dict[str, Any]]:
    names = read_record(RowDir(runs.root / "rows" / row.spec.directory).row, RowRecord).data.classes
    done = [one for one in row.replicates if len(one.measured)]
    outcomes = [[outcome(runs, directory) for directory in one.measured["directory"]] for one in done]
    found = [_metrics(of_one) for of_one in outcomes]
    if row.is_replicated:
        units = {name: np.stack([pd.DataFrame(one[name]).mean().to_numpy() for one in found]) for name in found[0]}
    else:
        units = dict(found[0])
    samples = sum(np.bincount(of_one[0].labels, minlength=of_one[0].classes) for of_one in outcomes)
    for number in range(outcomes[0][0].classes):
        values = {name: pd.Series(by_unit[:, number]) for name, by_unit in units.items()}
        yield {
            "row": row.spec.name,
            "label": row.spec.label,
            "class": number,
            "name": names[number] if number < len(names) else str(number),
            "samples": int(np.asarray(samples)[number]),
            "replicates": len(outcomes),
            "seeds": max(map(len, outcomes)),
            **{name: series.mean() for name, series in values.items()},
            **{f"{name}_sd": series.std() for name, series in values.items()},
            **{f"{name}_n": int(series.count()) for name, series in values.items()},
        }


def _metrics(outcomes: Sequence[Outcome]) -> dict[str, Floats]:
    """Precision, recall and F1 (runs, classes) of runs on the same samples."""
    confusions = np.stack([confusion_counts(o.labels, o.predicted, o.classes) for o in outcomes])
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    true, predicted = confusions.sum(axis=2), confusions.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return {"precision": hits / predicted, "recall": hits / true, "f1": 2 * hits / (true + predicted)}
