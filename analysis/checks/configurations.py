"""Check that final runs and teachers were trained as their row says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.checks.finding import Finding, first_few, names_of, unequal
from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from mmkd.config import recipe_digest
from mmkd.files import read_json
from mmkd.records import RowIdentity, RowRecord, as_written, find_record, leaves
from mmkd.rundir import RowDir, TrialDir


def unlike_their_row(runs: Runs, rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Run these checks for rows that have begun."""
    yield from _learning_rates(rows)
    for row in rows:
        yield from _configurations(runs, row)
        yield from _seeds_and_splits(row)


def _learning_rates(rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """Rows of which some tune the learning rate and others do not, or fix it elsewhere."""
    fixed = [row.fact("fixed.learning_rate") for row in rows]
    tuned = [bool(row.fact("space.learning_rate.low")) for row in rows]
    values = [f"fixed at {at}" if at else "tuned" * is_tuned for at, is_tuned in zip(fixed, tuned, strict=True)]
    yield from unequal("configurations", "learning rates", [row.title for row in rows], values)


def _configurations(runs: Runs, row: ReplicateRuns) -> Iterator[Finding]:
    """Final runs whose configuration is not what row.json says, key by key; the learning rate is the winner's."""
    record = find_record(RowDir(runs.root / "rows" / row.spec.directory).row, RowRecord)
    if record is None:
        return
    wanted = {key: value for key, value in leaves(_of_row(record.identity)) if value != {}}
    differing: dict[str, list[str]] = {}
    for directory in row.measured["directory"]:
        config = read_json(TrialDir(runs.root / directory).config)
        if not isinstance(config, Mapping):
            differing.setdefault("config.json is gone", []).append(directory)
            continue
        found = dict(leaves(_of_run(config)))
        for key, value in wanted.items():
            if found.get(key) != value:
                differing.setdefault(f"{key} {found.get(key)}, in row.json {value}", []).append(directory)
    for what, directories in differing.items():
        yield Finding("configurations", f"{row.title}: final runs are not the row's: {what} ({names_of(directories)})")


def _of_row(identity: RowIdentity) -> dict[str, Any]:
    written = as_written(identity)
    method = {key: written.get(key) for key in ("method", "level", "settings")}
    shared = {key: written.get(key) for key in ("primary", "pairing")}
    return {
        **shared,
        "training": written["training"],
        "network": written["student"],
        "distillation": method,
        **({"teacher": _teacher_of(identity.data, written)} if written.get("teacher") else {}),
    }


def _teacher_of(fingerprint: str, written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The teacher's configuration; of a tuned one the recipe that it was tuned from."""
    teacher: Mapping[str, Any] = written["teacher"]
    if not written.get("teacher_tuning"):
        return teacher
    return {"branch": teacher.get("branch"), "tuned_from": recipe_digest(fingerprint, teacher)}


def _of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    shared = {key: config.get(key) for key in ("primary", "pairing", "training", "network", "distillation")}
    return {**shared, "teacher": config.get("teacher") or {}}


def _seeds_and_splits(row: ReplicateRuns) -> Iterator[Finding]:
    """Final runs with another seed than their directory's name has, and runs and teachers of another split."""
    wanted_seeds = row.study.frames["final_runs"].index[row.spans["final_runs"]]
    final = zip(wanted_seeds, *(row.values(name, ["final_runs"]) for name in ("seed", "directory")), strict=True)
    wrong = [directory for wanted, seed, directory in final if not pd.isna(seed) and seed != wanted]
    if wrong:
        yield Finding("seeds", f"{row.title}: other seeds than their directories are named after: {names_of(wrong)}")
    trials = zip(row.values("directory"), row.values("fingerprint"), row.values("split"), strict=True)
    known = [(directory, split) for directory, data, split in trials if isinstance(data, str)]
    ours = row.fact("split")
    other = [directory for directory, split in known if (split if isinstance(split, str) else "") != ours]
    if other:
        yield Finding("splits", f"{row.title}: of another split than the row's: {first_few(other)}")
