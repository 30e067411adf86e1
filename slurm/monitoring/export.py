"""Export the overview as JSON whose keys stay."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.monitoring.overview import Overview, RowCount
from slurm.monitoring.remaining import Eta
from slurm.monitoring.watching import Sign, Watched

FORMAT = 2
"""Raised when a key changes its meaning or goes; new keys may come at any time."""


DETAILS = (State.PENDING, State.SAMPLED, State.RETRY_DUE, State.FAILED)
"""States that are counted beside the busy and the finished trials."""


def to_json(overview: Overview) -> dict[str, Any]:
    """The overview as JSON values; docs/monitor.md says what each key is."""
    survey, eta, hours, answer = overview.survey, overview.eta, overview.gpu_hours, overview.answer
    limit = hours.limit
    return {
        "format": FORMAT,
        "taken": survey.taken,
        "root": str(survey.root),
        "studies": [study.name for study in survey.studies],
        "runs": {
            "finished": overview.finished,
            "left": overview.left,
            "running": overview.busy,
            **{word.value: overview.count(word) for word in (*DETAILS, Sign.LOST, *Status)},
        },
        "teachers": {"trained": overview.teachers_trained, "needed": overview.teachers_needed},
        "slots": {"busy": overview.busy, "recent": round(overview.slots, 3)},
        "gpu_hours": {
            "spent": round(hours.spent, 4),
            "max": limit,
            "left": None if limit is None else round(max(limit - hours.spent, 0.0), 4),
        },
        "eta": asdict(eta) if isinstance(eta, Eta) else None,
        "no_eta": "" if isinstance(eta, Eta) else eta,
        "controllers": [{"host": c.host, "pid": c.pid, "heard_seconds": round(c.age, 1)} for c in overview.controllers],
        "controller_jobs": [asdict(job) for job in overview.controller_jobs],
        "workers": overview.workers,
        "rows": [_row(row) for row in overview.rows],
        "trials": [_trial(watched) for watched in overview.trials if watched.trial.status is None],
        "failures": [
            {
                "class": f.failure,
                "attempts": f.attempts,
                "trials": f.trials,
                "latest": f.latest.entry.directory.name,
                "message": f.message,
            }
            for f in overview.failures
        ],
        "queue": {
            "asked": answer.asked if answer else None,
            "problem": answer.problem if answer else "",
            "others": [asdict(job) for job in overview.others],
        },
        "problems": list(survey.problems),
    }


def _row(count: RowCount) -> dict[str, Any]:
    row, best = count.row, count.best
    return {
        "directory": f"rows/{row.directory.path.name}",
        "name": row.name,
        "replicate": row.replicate,
        "label": row.label,
        "group": row.group,
        "studies": list(row.studies),
        "trials": {"wanted": row.trials, "sampled": count.sampled, "ended": count.ended, "left": count.left.tuning},
        "confirm": {"wanted": row.seeds, "finished": count.final, "left": count.left.confirm},
        "running": count.busy,
        "pending": count.pending,
        "failed": count.failed,
        "selection": row.selection,
        "best": best and {"trial": best.entry.name, "value": best.value, "accuracy": best.accuracy},
    }


def _trial(watched: Watched) -> dict[str, Any]:
    trial, job, last = watched.trial, watched.job, watched.trial.last
    entry = trial.entry
    return {
        "directory": entry.directory.name,
        "row": entry.label,
        "name": entry.name,
        "kind": entry.kind,
        "state": watched.shown.value,
        "attempt": last.number if last else 0,
        "epoch": trial.epoch,
        "epochs": entry.epochs,
        "value": trial.value,
        "accuracy": trial.accuracy,
        "curve": list(trial.curve),
        "node": last.node if last else "",
        "submitted": last.submitted.submitted if last else None,
        "started": last.ran.started if last else None,
        "heard": trial.heard,
        "failure": (last and last.end) or "",
        "message": last.message if last else "",
        "job": asdict(job) if job else None,
    }
