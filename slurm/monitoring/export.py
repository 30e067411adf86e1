"""The picture for programs: JSON whose keys stay."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from slurm.monitoring.overview import Picture, RowCount
from slurm.monitoring.remaining import Eta
from slurm.monitoring.watching import BUSY, Condition, Watched

FORMAT = 1
"""Raised when a key changes its meaning or goes; new keys may come at any time."""


def to_json(picture: Picture) -> dict[str, Any]:
    """The picture as JSON values; docs/monitor.md says what each key is."""
    survey, eta, hours = picture.survey, picture.eta, picture.gpu_hours
    limit = hours.limit
    return {
        "format": FORMAT,
        "taken": survey.taken,
        "root": str(survey.root),
        "studies": [study.name for study in survey.studies],
        "runs": {
            "finished": picture.finished,
            "left": picture.left,
            "running": picture.count(*BUSY),
            **{c.value: picture.count(c) for c in Condition if c not in BUSY},
        },
        "teachers": {"trained": picture.teachers_trained, "needed": picture.teachers_needed},
        "slots": {"busy": picture.count(*BUSY), "recent": round(picture.slots, 3)},
        "gpu_hours": {
            "spent": round(hours.spent, 4),
            "max": limit,
            "left": None if limit is None else round(max(limit - hours.spent, 0.0), 4),
        },
        "eta": asdict(eta) if isinstance(eta, Eta) else None,
        "no_eta": "" if isinstance(eta, Eta) else eta,
        "controllers": [
            {"host": c.host, "pid": c.pid, "heard_seconds": round(c.heard, 1)} for c in picture.controllers
        ],
        "controller_jobs": [asdict(job) for job in picture.controller_jobs],
        "rows": [_row(row) for row in picture.rows],
        "trials": [_trial(watched) for watched in picture.trials if watched.trial.status is None],
        "failures": [
            {
                "class": f.failure,
                "attempts": f.attempts,
                "trials": f.trials,
                "latest": _directory(f.latest.place.directory.path.parts, f.latest.place.kind),
                "message": f.message,
            }
            for f in picture.failures
        ],
        "queue": _queue(picture),
        "problems": list(survey.problems),
    }


def _row(count: RowCount) -> dict[str, Any]:
    row, best = count.row, count.best
    return {
        "directory": f"rows/{row.directory.path.name}",
        "name": row.name,
        "label": row.label,
        "group": row.group,
        "studies": list(row.studies),
        "trials": {"wanted": row.trials, "asked": count.asked, "settled": count.settled, "left": count.left.tuning},
        "confirm": {"wanted": row.seeds, "finished": count.confirmed, "left": count.left.confirm},
        "running": count.busy,
        "waiting": count.waiting,
        "failed": count.failed,
        "selection": row.selection,
        "best": best and {"trial": best.name, "value": best.value, "accuracy": best.accuracy},
    }


def _trial(watched: Watched) -> dict[str, Any]:
    trial, job, last = watched.trial, watched.job, watched.trial.last
    place = trial.place
    return {
        "directory": _directory(place.directory.path.parts, place.kind),
        "row": place.label,
        "name": place.name,
        "kind": place.kind,
        "state": watched.condition.value,
        "attempt": last.number if last else 0,
        "epoch": trial.epoch,
        "epochs": place.epochs,
        "value": trial.value,
        "accuracy": trial.accuracy,
        "curve": list(trial.curve),
        "node": last.node if last else "",
        "submitted": last.submitted if last else None,
        "started": last.started if last else None,
        "heard": trial.heard,
        "failure": last.end if last else "",
        "message": last.message if last else "",
        "job": asdict(job) if job else None,
    }


def _directory(parts: tuple[str, ...], kind: str) -> str:
    """A trial's place below the root."""
    return "/".join(parts[-2:] if kind == "teacher" else parts[-4:])


def _queue(picture: Picture) -> dict[str, Any]:
    answer = picture.answer
    return {
        "asked": answer.asked if answer else None,
        "problem": answer.problem if answer else "",
        "others": [asdict(job) for job in picture.others],
    }
