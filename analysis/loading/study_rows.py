"""Collect the trials that count for each row of a study, replicate by replicate, and the row's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import pandas as pd

from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from analysis.loading.study_trials import Selected, first_lines, joined_spans, select_trials
from mmkd.errors import UserError, choose
from mmkd.formatting import teacher_label
from mmkd.records import StudyRecord, StudyRow, read_study, select_rows


@dataclass(frozen=True, kw_only=True)
class RowRuns(Selected):
    """A row of a study: its replicates by number, in a study without replicates one.

    The frames are those of all replicates, see `Selected`. `title` is the row's label, and its group where another row
    has the same label. `control` is the name of the row that it is compared with, None where it is none.
    """

    title: str
    replicates: tuple[ReplicateRuns, ...]
    control: str | None = None

    @property
    def spec(self) -> StudyRow:
        """The row in the study's record, as its first replicate has it: name, label, group and the paper's figures."""
        return self.replicates[0].spec

    @property
    def row(self) -> pd.Series | None:
        """The line in `Runs.rows` of the first replicate that has one."""
        return next((one.row for one in self.replicates if one.facts is not None), None)

    def fact(self, column: str) -> str:
        """The replicates' common value of a column of `Runs.rows`, as text: that of the first that knows it."""
        return next((known for one in self.replicates if (known := one.fact(column))), "")

    @property
    def sampled(self) -> int:
        """Tuning trials of all replicates, see `ReplicateRuns.sampled`."""
        return sum(one.sampled for one in self.replicates)

    @property
    def is_replicated(self) -> bool:
        """True if the study asks for several replicates."""
        return len(self.replicates) > 1

    def means(self, column: str) -> list[float]:
        """The mean of a column over the final runs that have a score, in each replicate that has one."""
        return [float(one.measured[column].mean()) for one in self.replicates if len(one.measured)]

    def teacher_means(self, column: str) -> list[float]:
        """The same of the teachers."""
        return [float(one.measured_teachers[column].mean()) for one in self.replicates if len(one.measured_teachers)]

    @property
    def unfinished(self) -> list[ReplicateRuns]:
        """The replicates that are not finished and have not failed."""
        return [one for one in self.replicates if one.status and not one.status.startswith("failed")]

    @cached_property
    def status(self) -> str:
        """The row's progress, or why it failed; empty once every replicate has ended and one or more has a score."""
        if len(self.replicates) == 1:
            return self.replicates[0].status
        if self.unfinished:
            return f"replicates {len(self.replicates) - len(self.unfinished)}/{len(self.replicates)}"
        return "" if any(not one.status for one in self.replicates) else self.replicates[0].status


@dataclass(frozen=True)
class StudyRuns:
    """A study's record, its rows in the study's order, and the control; None where the study names none."""

    record: StudyRecord
    rows: tuple[RowRuns, ...]
    control: RowRuns | None

    def row(self, name: str) -> RowRuns:
        """The row called `name`.

        Raises:
            UserError: there is no such row.
        """
        known = {row.spec.name: row for row in self.rows}
        return known[choose(f"row of study {self.record.name}", name, known)]

    def control_of(self, row: RowRuns) -> RowRuns | None:
        """The row that `row` is compared with; None where it is a control itself, or there is none."""
        return next((other for other in self.rows if other.spec.name == row.control), None)


def collect(runs: Runs, name: str, rows: Sequence[str] | None = None) -> StudyRuns:
    """The rows of a study and their trials; collected once per record of the study, since every figure asks for them.

    Args:
        runs: all runs.
        name: the study's.
        rows: names of the rows beside the control; None: all.

    Raises:
        UserError: there is no such study or row, or the study's record is invalid.
    """
    study = read_study(runs.root, name)
    if rows is not None:
        names = select_rows(rows, study.controls, study.control)
        study = study.model_copy(update={"rows": tuple(row for row in study.rows if row.name in names)})
    kept = _collected.setdefault(runs, {})
    if study not in kept:
        kept[study] = collect_record(runs, study)
    return kept[study]


_collected: WeakKeyDictionary[Runs, dict[StudyRecord, StudyRuns]] = WeakKeyDictionary()


def replicates_by_name(study: StudyRecord) -> dict[str, list[StudyRow]]:
    """The replicates of each row by its name, in the study's order."""
    found: dict[str, list[StudyRow]] = {}
    for row in study.rows:
        found.setdefault(row.name, []).append(row)
    return found


def collect_record(runs: Runs, study: StudyRecord) -> StudyRuns:
    """The rows of a study by its record, and their trials."""
    named = replicates_by_name(study)
    lines = runs.rows[runs.rows["row"].isin({spec.directory for spec in study.rows})]
    facts = {line["row"]: {str(key): value for key, value in line.items()} for line in lines.to_dict("records")}
    trials = runs.trials.set_index("directory", drop=False)
    frames, spans = select_trials(trials, [spec for specs in named.values() for spec in specs])
    labels = [specs[0].label for specs in named.values()]
    controls = study.controls
    rows = []
    for specs in named.values():
        first = specs[0]
        title = f"{first.label} [{first.group}]" if first.group and labels.count(first.label) > 1 else first.label
        own, spans = spans[: len(specs)], spans[len(specs) :]
        replicates = tuple(
            ReplicateRuns(
                study=frames,
                spans=span,
                spec=spec,
                title=f"{title} r{spec.replicate}" if spec.replicate else title,
                facts=facts.get(spec.directory),
            )
            for spec, span in zip(specs, own, strict=True)
        )
        rows.append(
            RowRuns(
                study=frames, spans=joined_spans(own), title=title, replicates=replicates, control=controls[first.name]
            )
        )
    return StudyRuns(study, tuple(rows), next((row for row in rows if row.spec.name == study.control), None))


def teacher_families(rows: Sequence[RowRuns]) -> list[tuple[str, pd.DataFrame]]:
    """The teachers of these rows, each once: a label and the teachers that differ in their seeds and splits alone."""
    teachers = first_lines(pd.concat([row.teachers for row in rows]))
    families = [(str(digest), family) for digest, family in teachers.groupby("teacher_family", sort=False)]
    labels = [teacher_label(family["branch"].iloc[0], "Teacher") for _, family in families]
    return [
        (label if labels.count(label) == 1 else f"{label} {digest[:6]}", family)
        for label, (digest, family) in zip(labels, families, strict=True)
    ]


def nothing(row: RowRuns | ReplicateRuns, what: str) -> UserError:
    """The error that a row has nothing to show, with its progress."""
    return UserError(f"{row.title}: no {what}" + (f" ({row.status})" if row.status else ""))
