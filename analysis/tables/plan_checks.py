"""Compare the plans of a root's studies with their records and directories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmkd.errors import UserError
from mmkd.formatting import count, shortened
from mmkd.records import StudyRecord
from mmkd.records.plans import PlanRecord
from mmkd.rundir import Root
from mmkd.study_plan import UNPLANNED, read_plan, tested_runs


def read_plans(root: Root, studies: Mapping[str, StudyRecord]) -> tuple[dict[str, PlanRecord | None], list[str]]:
    """The plans of these studies, None where there is none; and what is damaged."""
    plans, damaged = {}, []
    for name in studies:
        try:
            plans[name] = read_plan(root, name)
        except UserError as error:
            damaged.append(str(error).replace(f"{root.path}/", ""))
    return plans, damaged


def check_plans(root: Root, studies: Mapping[str, StudyRecord]) -> Iterator[tuple[str, bool]]:
    """Lines about the plans: True beside what is wrong, False beside what is only worth knowing."""
    plans, damaged = read_plans(root, studies)
    yield from ((text, True) for text in damaged)
    for name, plan in plans.items():
        if plan is None:
            yield f"study {name}: {UNPLANNED}", False
            continue
        yield from ((f"study {name}: {text}", True) for text in _unlike_record(studies[name], plan))
        gone = _gone(root, plan)
        if gone:
            yield f"study {name}: {count(len(gone), 'tested final run')} gone: {shortened(gone, ', ')}", True
    yield from ((text, True) for text in _beyond(root, studies, plans))


def _unlike_record(study: StudyRecord, plan: PlanRecord) -> Iterator[str]:
    """Rows of the study's record that are not those of its plan: one of the two was edited, or a launch was killed."""
    recorded: dict[str, list[str]] = {}
    for row in study.rows:
        recorded.setdefault(row.name, []).append(f"{row.directory} on {count(len(row.seeds), 'seed')}")
    now = plan.versions[-1]
    planned = {
        name: [f"{directory} on {count(row.seeds, 'seed')}" for directory in row.directories]
        for name, row in now.rows.items()
    }
    names = [name for name in {**recorded, **planned} if recorded.get(name) != planned.get(name)]
    if names or study.control != now.control:
        what = f"rows {shortened(names, ', ')}" if names else "the control"
        yield f"its record differs from its plan in {what}; launch it again to note the change"


def _gone(root: Root, plan: PlanRecord) -> list[str]:
    """Final runs that had read test data, by the plan, and are gone."""
    now = tested_runs(root, plan.tested)
    return [f"{row}/confirm/{run}" for row, runs in plan.tested.items() for run in runs if run not in now.get(row, ())]


def _beyond(root: Root, studies: Mapping[str, StudyRecord], plans: Mapping[str, PlanRecord | None]) -> Iterator[str]:
    """Final runs on seeds that no plan has asked for; of rows whose studies all have plans."""
    planned: dict[str, int] = {}
    for plan in filter(None, plans.values()):
        for row in (row for version in plan.versions for row in version.rows.values()):
            planned |= {name: max(planned.get(name, 0), row.seeds) for name in row.directories}
    unplanned = {row.directory for name, study in studies.items() if plans.get(name) is None for row in study.rows}
    for name, runs in tested_runs(root, sorted(planned.keys() - unplanned)).items():
        more = [run for run in runs if int(run.partition("-")[0]) > planned[name]]
        if more:
            yield f"rows/{name}: final runs that no plan asked for: {shortened(more, ', ')}"
