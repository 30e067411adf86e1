"""Read the plan of a study, and say in words what has changed since it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from mmkd.errors import UserError
from mmkd.formatting import count, shortened
from mmkd.records import RowRecord, as_written, differences, find_record, read_record
from mmkd.records.plans import PlanRecord, PlanVersion
from mmkd.rundir import Root, RowDir

REMEDY = "repair it, or move it away: the next launch writes a new plan, which says how much had been tested by then"
UNPLANNED = "no plan: the study was launched by a version of mmkd that wrote none"


@dataclass(frozen=True)
class PlanChange:
    """A change of a plan in words, and how many final runs had read test data when it was made."""

    at: float
    tested: int
    what: tuple[str, ...]


def read_plan(root: Root, study: str) -> PlanRecord | None:
    """Read a study's plan; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = root.plan(study)
    return read_record(path, PlanRecord, REMEDY) if path.exists() else None


def plan_changes(root: Root, plan: PlanRecord) -> list[PlanChange]:
    """The changes since the plan was written, in order."""
    return [
        PlanChange(after.at, after.tested, tuple(describe_change(root, before, after)))
        for before, after in pairwise(plan.versions)
    ]


def plan_note(root: Root, study: str) -> str:
    """One line about the plan for readers of the study's table; "" if it was written early and kept."""
    try:
        plan = read_plan(root, study)
    except UserError as error:
        return f"plan not readable: {error}".replace(f"{root.path}/", "")
    if plan is None:
        return UNPLANNED
    said = []
    if late := plan.versions[0].tested:
        said.append(f"plan written after {count(late, 'final run')} had been tested")
    after = [change for change in plan_changes(root, plan) if change.tested]
    if after:
        listed = "; ".join(f"{date(change.at)} {', '.join(change.what)}" for change in after)
        said.append(f"plan changed {times(len(after))} after test was read: {listed}")
    return "; ".join(said)


def times(number: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def date(at: float) -> str:
    """`2026-11-29`, of a time in seconds since 1970."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def describe_change(root: Root, before: PlanVersion, after: PlanVersion) -> Iterator[str]:
    """Describe a change of a plan, in a phrase for each kind.

    The rows' records below `root` tell how a row differs from the one that had its name before.
    """
    settings = [
        version.model_dump(mode="json", include={"control", "data", "primary", "splits", "replicates"})
        for version in (before, after)
    ]
    for key, (old, new) in differences(settings).items():
        short = (str(value)[:12] if key == "data" else _shown(value) for value in (old, new))
        yield f"{key} {' → '.join(short)}"
    for word, names in (
        ("added", [name for name in after.rows if name not in before.rows]),
        ("removed", [name for name in before.rows if name not in after.rows]),
    ):
        if names:
            yield f"{count(len(names), 'row')} {word} ({shortened(names, ', ')})"
    yield from _of_rows(root, before, after)
    if after.deleted:
        yield f"{count(len(after.deleted), 'tested final run')} deleted ({shortened(after.deleted, ', ')})"


def _of_rows(root: Root, before: PlanVersion, after: PlanVersion) -> Iterator[str]:
    """Changes of the rows that both versions have; rows that changed alike are named together."""
    common = [name for name in after.rows if name in before.rows]
    alike: dict[str, list[str]] = {}
    for name in common:
        old, new = before.rows[name], after.rows[name]
        fields = [row.model_dump(include={"control", "trials", "seeds", "selection"}) for row in (old, new)]
        phrases = [f"{key} {_shown(a)} → {_shown(b)}" for key, (a, b) in differences(fields).items()]
        if len(old.directories) != len(new.directories) and before.replicates == after.replicates:
            phrases.append(f"replicates {len(old.directories)} → {len(new.directories)}")
        other = next((pair for pair in zip(old.directories, new.directories, strict=False) if pair[0] != pair[1]), None)
        if other is not None:
            phrases.append(_retuned(root, *other))
        for phrase in phrases:
            alike.setdefault(phrase, []).append(name)
    for phrase, names in alike.items():
        yield phrase if len(names) == len(common) else f"{phrase} ({shortened(names, ', ')})"


def _retuned(root: Root, old: str, new: str) -> str:
    """Describe a row that differs from the one that had its name before."""
    records = [find_record(RowDir(root.path / "rows" / name).row, RowRecord) for name in (old, new)]
    identities: Sequence[dict[str, Any]] = [as_written(record.identity) for record in records if record is not None]
    if len(identities) < len(records):
        return "tuned again as another row"
    changed = [f"{key} {_shown(a)} → {_shown(b)}" for key, (a, b) in differences(identities).items()]
    return f"tuned again as another row: {shortened(changed, ', ')}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def tested_runs(root: Root, rows: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The final runs that have read test data, by the row's directory; rows without any are left out.

    A run of a former winner has read them, too.
    """
    found = {}
    for name in rows:
        runs = RowDir(root.path / "rows" / name).final_runs()
        if tested := tuple(run.path.name for run in runs if run.result.exists()):
            found[name] = tested
    return found
