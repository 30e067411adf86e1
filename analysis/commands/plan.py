"""`python -m analysis plan`: what a study compares, and what changed since it was planned."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analysis.commands.options import Subparsers, new_command, only_study, output_format, write_out

if TYPE_CHECKING:
    from mmkd.records.plans import PlanRecord, PlanVersion
    from mmkd.rundir import Root

FORMATS = ("txt", "json")


def add_command(subparsers: Subparsers) -> None:
    """Add the command."""
    new_command(
        subparsers,
        "plan",
        run,
        FORMATS,
        help="show what a study compares, and what changed after test data were read",
        description="Show a study's plan, which its first launch wrote before any trial, and each later change with "
        "its date and the number of final runs that had been tested by then.",
    )


def run(options: argparse.Namespace) -> int:
    """Print or write the plan.

    Raises:
        UserError: there is no such study, or its plan is damaged.
    """
    from mmkd.records import as_written, read_study
    from mmkd.rundir import Root
    from mmkd.study_plan import UNPLANNED, read_plan

    style = output_format(options, FORMATS)
    root, study = Root(options.root), only_study(options)
    read_study(root.path, study)
    plan = read_plan(root, study)
    if style == "json":
        text = json.dumps(None if plan is None else as_written(plan), indent=1) + "\n"
    else:
        text = f"{study}: {UNPLANNED}\n" if plan is None else "\n".join(plan_lines(root, plan)) + "\n"
    write_out(text, options.out)
    return 0


def plan_lines(root: Root, plan: PlanRecord) -> Iterator[str]:
    """The plan as it stands now, and its changes."""
    from mmkd.formatting import columns, count
    from mmkd.records import compared_with
    from mmkd.study_plan import plan_changes

    first, now = plan.versions[0], plan.versions[-1]
    tested = sum(map(len, plan.tested.values()))
    yield f"plan of {plan.study}, written {_time(first)} {_when(first.tested)}"
    yield f"control     {now.control or 'none'}"
    yield f"data        fingerprint {now.data[:12]}; student of {now.primary}"
    splits = now.splits.model_dump(exclude_none=True)
    yield f"replicates  {now.replicates}; splits {', '.join(f'{key} = {value}' for key, value in splits.items())}"
    yield "metric      test accuracy of final runs; winner by the validation metric below"
    yield f"code        {now.code}{f', commit {now.commit[:12]}' if now.commit else ''}{'+' if now.diff else ''}"
    yield f"tested      {count(tested, 'final run')} so far"
    head = ("row", "compared with", "replicates", "trials", "seeds", "winner by", "first directory")
    controls = compared_with({name: row.control for name, row in now.rows.items()}, now.control)
    lines = []
    for name, row in now.rows.items():
        budget = map(str, (len(row.directories), row.trials, row.seeds))
        lines.append((name, controls[name] or "-", *budget, f"valid {row.selection}", row.directories[0]))
    yield from columns([head, *lines])
    changes = plan_changes(root, plan)
    if not changes:
        yield "unchanged since"
    for version, change in zip(plan.versions[1:], changes, strict=True):
        yield f"changed {_time(version)} {_when(change.tested)}:"
        yield from (f"  {phrase}" for phrase in change.what)


def _time(version: PlanVersion) -> str:
    return f"{datetime.fromtimestamp(version.at, UTC):%Y-%m-%d %H:%M} UTC"


def _when(tested: int) -> str:
    from mmkd.formatting import count

    return f"after {count(tested, 'final run')} had been tested" if tested else "before test was read"
