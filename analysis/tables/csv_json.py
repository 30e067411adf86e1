"""A table as data: CSV with one line per row and metric, JSON with provenance; values at full precision."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import StringIO
from itertools import chain
from typing import Any

from analysis.stats.uncertainty import half_width
from analysis.tables.difference_cells import DIFFERENCES
from analysis.tables.model import Cell, Column, Table

FIELDS = (
    "study", "group", "row", "label", "kind", "status", "metric", "unit", "value", "sd", "sem", "ci95", "n", "wanted",
    "rank", "tied_with_best", "difference", "difference_low", "difference_high", "p", "p_holm",
    "effect_size", "correlation", "low", "high", "text",
    "control", "to_study_control", "to_study_control_low", "to_study_control_high",
    "p_equivalence", "over_samples_low", "over_samples_high",
)  # fmt: skip
UNITS = {"spread": "percent", "mean": "percent", "count": "", "times": "ratio", "ratio": "count", "gap": "percent"}
UNITS |= {"difference": "points", "rank": "", "p": ""}
DERIVED = tuple(column.key for column in DIFFERENCES)
"""Columns that repeat what the row of `accuracy` says."""


def to_csv(table: Table) -> str:
    """One line per row of the table and metric; an empty field is not known or does not apply.

    The verdict and each warning are lines of the metrics "verdict" and "warning", with their words in `text`.
    """
    said = [("verdict", table.verdict), *(("warning", text) for text in table.warnings)]
    texts = ({"study": table.name, "metric": metric, "text": text} for metric, text in said if text)
    return csv_text(FIELDS, chain(_lines(table), texts))


def csv_text(fields: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    """Lines as CSV, after a header."""
    text = StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    for section in table.sections:
        for row in section.rows:
            known = {"study": table.name, "group": section.title, "row": row.name, "label": row.label}
            known["control"] = row.control
            for column in table.columns:
                if column.key not in DERIVED:
                    cell = row.cells[column.key]
                    facts = {"kind": row.kind, "status": row.status, "metric": column.key, "unit": _unit(column)}
                    yield known | facts | _numbers(cell)


def _unit(column: Column) -> str:
    return {"parameters": "count", "cost": column.label}.get(column.key) or UNITS[column.style]


def _numbers(cell: Cell) -> dict[str, Any]:
    known: dict[str, Any] = {"value": cell.value, "n": cell.n, "wanted": cell.wanted, "rank": cell.rank}
    if cell.spread is not None and cell.n is not None:
        known["sd"] = cell.spread
        known |= {"sem": float(half_width(cell.spread, cell.n, "sem"))}
        known |= {"ci95": float(half_width(cell.spread, cell.n, "ci"))}
    if cell.interval is not None:
        known["low"], known["high"] = cell.interval
    if cell.tied is not None:
        known["tied_with_best"] = int(cell.tied)
    if cell.difference is not None:
        found = cell.difference
        known |= {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
        known |= {"p": found.p, "p_holm": found.corrected}
        known |= {"effect_size": found.effect, "correlation": found.correlation, "p_equivalence": found.equivalence}
    if cell.over_samples is not None:
        known |= {"over_samples_low": cell.over_samples.low, "over_samples_high": cell.over_samples.high}
    if cell.to_study_control is not None:
        common = cell.to_study_control
        known |= {"to_study_control": common.value}
        known |= {"to_study_control_low": common.low, "to_study_control_high": common.high}
    return known


def to_json(table: Table) -> str:
    """Everything that the table knows, and where it comes from."""
    return json.dumps(asdict(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
