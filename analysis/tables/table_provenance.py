"""The provenance of a table: rows, runs, data and code as JSON values, free of this machine's paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.tables.checks import fact
from mmkd.records import StudyRecord


def provenance(runs: Runs, study: StudyRecord, rows: Sequence[RowRuns]) -> dict[str, Any]:
    """The study, and for each of its rows the directories (relative to the root) that its figures were read from."""
    return {"study": study.name, "control": study.control, "rows": [_row(runs, row) for row in rows]}


def _row(runs: Runs, row: RowRuns) -> dict[str, Any]:
    ran = pd.concat([row.tuning, row.final_runs, row.teachers])
    attempts = runs.attempts[runs.attempts["directory"].isin(ran["directory"])]
    versions = [column for column in attempts.columns if column.startswith("versions.")]
    winner = None if row.row is None or pd.isna(row.row["winner_trial"]) else int(row.row["winner_trial"])
    return {
        "name": row.spec.name,
        "directory": f"rows/{row.spec.directory}",
        "digest": fact(row, "digest"),
        "data": {"source": fact(row, "source"), "fingerprint": fact(row, "fingerprint")},
        "trials": row.sampled,
        "winner": winner,
        "seeds": list(row.spec.seeds),
        "runs": [str(directory) for directory in row.final_runs["directory"].dropna()],
        "teachers": [str(directory) for directory in row.teachers["directory"].dropna()],
        "commits": _distinct(ran["commit"]),
        "devices": _distinct(ran["device"]),
        "versions": {column.removeprefix("versions."): _distinct(attempts[column]) for column in versions},
    }


def _distinct(column: pd.Series[Any]) -> list[str]:
    return sorted(map(str, column.dropna().unique()))
