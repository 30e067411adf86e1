"""The rows of a study for figures: by name, each with the control."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from mmkd.errors import UserError, choose
from mmkd.records import read_study


@dataclass(frozen=True)
class Chosen:
    """A row and the study's control; None where the study names none, or where the row is the control itself."""

    row: RowRuns
    control: RowRuns | None


def study_rows(runs: Runs, study: str) -> list[Chosen]:
    """All rows of a study, in its order.

    Raises:
        UserError: there is no such study, or its file is broken.
    """
    spec = read_study(runs.root, study)
    rows = collect(runs, spec)
    control = next((row for row in rows if row.spec.name == spec.control), None)
    return [Chosen(row, None if row is control else control) for row in rows]


def choose_row(runs: Runs, study: str, row: str) -> Chosen:
    """The row called `row`.

    Raises:
        UserError: there is no such study or row.
    """
    known = {chosen.row.spec.name: chosen for chosen in study_rows(runs, study)}
    return known[choose(f"row of study {study}", row, known)]


def nothing(row: RowRuns, what: str) -> UserError:
    """The error that a row has nothing to draw, with its progress."""
    return UserError(f"{row.title}: no {what}" + (f" ({row.status})" if row.status else ""))
