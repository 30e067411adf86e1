"""Write the plan of a study before its first trial, and each later change with its date."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mmkd.provenance import SOURCE, source_digest
from mmkd.records import StudyRecord, find_record, read_study, write_record
from mmkd.records.plans import PlannedRow, PlanRecord, PlanVersion
from mmkd.rundir import Root
from mmkd.study_plan import describe_change, read_plan, tested_runs
from sweeps.actions.snapshot import origin_of
from sweeps.launched_study import study_record
from sweeps.resolve import Launch
from sweeps.rows import Row

UNCOMPARED = {"at", "tested", "deleted", "code", "commit", "diff"}
"""Fields of a version that do not make it another plan."""


def write_plan(made: Launch) -> list[str]:
    """Write the plan of a launch, or add a version where it has changed. Return the changes in words.

    Call it once the study is recorded, with the locks of its rows and before any trial is submitted. A launch that
    changes nothing writes nothing.

    Raises:
        UserError: the plan there is damaged.
    """
    known = read_plan(made.root, made.name)
    directories = {row.directory.path.name for row in made.all_rows}
    former = set().union(*(version.directories for version in known.versions)) if known else set()
    now = tested_runs(made.root, sorted(directories | former))
    deleted = _deleted(known.tested if known else {}, now)
    study = read_study(made.root.path, made.name)
    version = planned(made, study, tested=sum(map(len, now.values())) + len(deleted), deleted=deleted)
    if known is not None and not deleted and _compared(known.versions[-1]) == _compared(version):
        _write(made.root, known, now)
        return []
    earlier = known.versions if known else ()
    _write(made.root, PlanRecord(study=made.name, versions=(*earlier, version)), now)
    return list(describe_change(made.root, earlier[-1], version)) if earlier else []


def note_tested(root: Root, study: str, rows: Sequence[Row]) -> None:
    """Note in the plan which final runs of these rows have read test data."""
    known = read_plan(root, study)
    if known is not None:
        now = tested_runs(root, [row.directory.path.name for row in rows])
        both = {name: tuple(sorted({*runs, *known.tested.get(name, ())})) for name, runs in now.items()}
        _write(root, known, {**known.tested, **both})


def would_change(made: Launch) -> list[str]:
    """Say for a dry run how a launch would change the plan; nothing without a plan.

    Raises:
        UserError: the plan there is damaged.
    """
    known = read_plan(made.root, made.name)
    if known is None:
        return []
    former = find_record(made.root.study(made.name), StudyRecord)
    study = study_record(made.name, made.study, made.all_rows, former, launched=made.rows)
    return list(describe_change(made.root, known.versions[-1], planned(made, study)))


def planned(made: Launch, study: StudyRecord, *, tested: int = 0, deleted: Sequence[str] = ()) -> PlanVersion:
    """The plan of a launch, from the study's record, in which rows that it does not run keep their budgets."""
    selections = {row.name: row.selection for row in made.all_rows}
    first, source = made.all_rows[0], SOURCE if made.code is None else made.code / "mmkd"
    rows = {}
    for name in study.controls:
        replicates = [row for row in study.rows if row.name == name]
        rows[name] = PlannedRow(
            control=replicates[0].control,
            trials=min(row.trials for row in replicates),
            seeds=min(len(row.seeds) for row in replicates),
            selection=selections[name],
            directories=tuple(row.directory for row in replicates),
        )
    return PlanVersion(
        at=time.time(),
        tested=tested,
        deleted=tuple(deleted),
        code=source_digest(source),
        **origin_of(source),
        control=study.control,
        data=first.student.data.fingerprint,
        primary=first.student.primary,
        splits=made.study.splits,
        replicates=made.study.replicates,
        rows=rows,
    )


def _compared(version: PlanVersion) -> Mapping[str, object]:
    return version.model_dump(exclude=UNCOMPARED)


def _deleted(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{row}/confirm/{run}" for row, runs in before.items() for run in runs if run not in now.get(row, ())]


def _write(root: Root, plan: PlanRecord, tested: Mapping[str, tuple[str, ...]]) -> None:
    """Write the plan with these tested runs, unless it is there as it should be."""
    plan = plan.model_copy(update={"tested": dict(sorted(tested.items()))})
    if plan != read_plan(root, plan.study):
        root.plan(plan.study).parent.mkdir(exist_ok=True)
        write_record(root.plan(plan.study), plan)
