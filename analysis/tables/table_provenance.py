"""The provenance of a table: rows, runs, data and code as JSON values, free of this machine's paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from analysis.loading.study_rows import StudyRuns


def provenance(runs: Runs, study: StudyRuns) -> dict[str, Any]:
    """The study, and for each replicate of its rows the directories (relative to the root) behind its figures."""
    rows = [{**_row(runs, one), "control": row.control} for row in study.rows for one in row.replicates]
    return {"study": study.record.name, "control": study.record.control, "rows": rows}


def _row(runs: Runs, row: ReplicateRuns) -> dict[str, Any]:
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
        "commits": _distinct(row.values("commit")),
        "devices": _distinct(row.values("device")),
        "versions": _versions(runs, [name for name in row.values("directory") if isinstance(name, str)]),
    }


def _versions(runs: Runs, directories: Iterable[str]) -> dict[str, list[str]]:
    """The versions of each package that the attempts recorded; without the frame of all attempts, which takes longer
    to make than the table."""
    found: dict[str, set[str]] = {}
    for attempt in (attempt for directory in directories for attempt in runs.recorded[directory]):
        for package, version in ((attempt.ran.model_extra or {}).get("versions") or {}).items():
            found.setdefault(package, set()).add(str(version))
    return {package: sorted(found[package]) for package in sorted(found)}


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({value for value in values if isinstance(value, str)})
