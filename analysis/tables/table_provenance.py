"""The provenance of a table: rows, runs, data and code as JSON values, free of this machine's paths."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from analysis.loading.study_rows import StudyRuns


def provenance(runs: Runs, study: StudyRuns) -> dict[str, Any]:
    """The study, and for each replicate of its rows the directories (relative to the root) behind its figures."""
    rows = [_row(runs, one) for row in study.rows for one in row.replicates]
    return {"study": study.record.name, "control": study.record.control, "rows": rows}


def _row(runs: Runs, row: ReplicateRuns) -> dict[str, Any]:
    ran = row.trials
    attempts = runs.attempts[runs.attempts["directory"].isin(ran["directory"])]
    versions = [column for column in attempts.columns if column.startswith("versions.")]
    return {
        "name": row.spec.name,
        "replicate": row.spec.replicate,
        "directory": f"rows/{row.spec.directory}",
        "digest": row.fact("digest"),
        "split": row.fact("split"),
        "data": {"source": row.fact("source"), "fingerprint": row.fact("fingerprint")},
        "trials": row.sampled,
        "winner": row.winner,
        "seeds": list(row.spec.seeds),
        "runs": [str(directory) for directory in row.final_runs["directory"].dropna()],
        "teachers": [str(directory) for directory in row.teachers["directory"].dropna()],
        "commits": _distinct(ran["commit"]),
        "devices": _distinct(ran["device"]),
        "versions": {column.removeprefix("versions."): _distinct(attempts[column]) for column in versions},
    }


def _distinct(column: pd.Series[Any]) -> list[str]:
    return sorted(map(str, column.dropna().unique()))
