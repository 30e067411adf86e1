"""Collect the trials that count for each row of a study, and the row's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import pandas as pd

from analysis.loading.runs import Runs
from mmkd.errors import UserError, choose
from mmkd.formatting import teacher_label
from mmkd.records import StudyRecord, StudyRow, read_study, select_rows
from mmkd.result_file import Status
from mmkd.trial_state import State

FINISHED = tuple(Status)
MISSING = "missing"


@dataclass(frozen=True)
class RowRuns:
    """A row of a study and its trials.

    `row` is its line in `Runs.rows`, None where there is none; `tuning` are its tuning trials; `final_runs` has one
    line per seed that the study asks for, `teachers` one line per teacher that these runs name; the status of a line
    whose directory is missing or rejected is "missing"; `superseded` are final runs of former winners. `title` is
    the row's label, and its group where another row has the same label.
    """

    spec: StudyRow
    title: str
    row: pd.Series | None
    tuning: pd.DataFrame
    final_runs: pd.DataFrame
    teachers: pd.DataFrame
    superseded: pd.DataFrame

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The final runs that have a score."""
        return scored(self.final_runs)

    @cached_property
    def measured_teachers(self) -> pd.DataFrame:
        """The teachers that have a score."""
        return scored(self.teachers)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The tuning trials, the final runs and the teachers."""
        return pd.concat([self.tuning, self.final_runs, self.teachers])

    def fact(self, column: str) -> str:
        """A column of the row's line in `Runs.rows`, as text; empty where it is not known."""
        value = None if self.row is None else self.row.get(column)
        return "" if value is None or pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def winner(self) -> int | None:
        """The number of the winning tuning trial; None while there is none."""
        return None if self.row is None or pd.isna(self.row["winner_trial"]) else int(self.row["winner_trial"])

    @property
    def sampled(self) -> int:
        """Tuning trials that the winner was chosen from, failed ones too; while tuning, those that are planned."""
        return self.spec.trials if self.row is None or pd.isna(self.row["sampled"]) else int(self.row["sampled"])

    @property
    def candidates(self) -> pd.DataFrame:
        """The tuning trials that the winner was chosen from, those that were tried again included."""
        assert self.row is not None
        return self.tuning[self.tuning["number"] < int(self.row["numbers"])]

    @cached_property
    def status(self) -> str:
        """The row's progress, or why it failed; empty once every seed has ended and one or more has a score."""
        if self.row is None:
            return "not started" if self.tuning.empty else "row.json not readable"
        if self.winner is None:
            return self._tuning_status()
        done, wanted = len(self.measured), len(self.final_runs)
        if not ended(self.final_runs).all():
            return f"final runs {done}/{wanted}"
        return "" if done else f"failed: {failures(self.final_runs)}"

    def _tuning_status(self) -> str:
        done = int(ended(self.tuning).sum())
        if done >= self.spec.trials and not (self.tuning["status"] == Status.COMPLETE).any():
            return f"failed: no tuning trial completed, of {done}"
        return f"tuning {min(done, self.spec.trials)}/{self.spec.trials}"


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
        """The control, to be shown beside `row`; None where `row` is the control itself."""
        return None if row is self.control else self.control


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
        names = select_rows(rows, [row.name for row in study.rows], study.control)
        study = study.model_copy(update={"rows": tuple(row for row in study.rows if row.name in names)})
    kept = _collected.setdefault(runs, {})
    if study not in kept:
        kept[study] = collect_record(runs, study)
    return kept[study]


_collected: WeakKeyDictionary[Runs, dict[StudyRecord, StudyRuns]] = WeakKeyDictionary()


def collect_record(runs: Runs, study: StudyRecord) -> StudyRuns:
    """The rows of a study by its record, and their trials."""
    trials = runs.trials.set_index("directory", drop=False)
    by_row = dict(list(trials.groupby("row")))
    labels = [spec.label for spec in study.rows]
    titles = [f"{s.label} [{s.group}]" if s.group and labels.count(s.label) > 1 else s.label for s in study.rows]
    rows = tuple(
        _collect_row(spec, title, runs.rows[runs.rows["row"] == spec.directory], by_row.get(spec.directory), trials)
        for spec, title in zip(study.rows, titles, strict=True)
    )
    return StudyRuns(study, rows, next((row for row in rows if row.spec.name == study.control), None))


def _collect_row(
    spec: StudyRow, title: str, lines: pd.DataFrame, own: pd.DataFrame | None, trials: pd.DataFrame
) -> RowRuns:
    """From the row's line, if there is one, its own trials, if there are any, and all trials."""
    own = trials.iloc[:0] if own is None else own
    confirms = own[own["kind"] == "confirm"]
    counting = confirms[~confirms["superseded"]]
    # By the seed in the directory's name: a configuration with another one is for the checks to find.
    seeds = counting["directory"].str.extract(r"/(\d+)-[^/]*$")[0].astype("Int64")
    final_runs = _lines(counting.set_index(seeds).pipe(_first), list(dict.fromkeys(spec.seeds)))
    teachers = _lines(trials, list(final_runs["teacher"].dropna().unique()))
    # The runs know their teachers' families also where a teacher's directory is missing.
    families = final_runs.dropna(subset=["teacher"]).drop_duplicates("teacher").set_index("teacher")
    teachers = teachers.assign(teacher_family=families["teacher_family"], branch=families["branch"])
    row = None if lines.empty else lines.iloc[0]
    tuning, superseded = own[own["kind"] == "tuning"], confirms[confirms["superseded"]]
    return RowRuns(spec, title, row, tuning, final_runs, teachers, superseded)


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~frame.index.duplicated()]


def _lines(frame: pd.DataFrame, keys: list[object]) -> pd.DataFrame:
    """One line per key, in their order."""
    frame = frame.reindex(keys)
    return frame.assign(status=frame["status"].fillna(MISSING))


def ended(frame: pd.DataFrame) -> pd.Series[bool]:
    """True for trials that have a result, or have failed (no retries left)."""
    return frame["status"].isin((*FINISHED, State.FAILED))


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that completed and were measured on test."""
    return frame[(frame["status"] == Status.COMPLETE) & frame["test_accuracy"].notna()]


def teacher_families(rows: Sequence[RowRuns]) -> list[tuple[str, pd.DataFrame]]:
    """The teachers of these rows, each once: a label and the teachers that differ in their seeds alone."""
    teachers = _first(pd.concat([row.teachers for row in rows]))
    families = [(str(digest), family) for digest, family in teachers.groupby("teacher_family", sort=False)]
    labels = [teacher_label(family["branch"].iloc[0], "Teacher") for _, family in families]
    return [
        (label if labels.count(label) == 1 else f"{label} {digest[:6]}", family)
        for label, (digest, family) in zip(labels, families, strict=True)
    ]


def nothing(row: RowRuns, what: str) -> UserError:
    """The error that a row has nothing to show, with its progress."""
    return UserError(f"{row.title}: no {what}" + (f" ({row.status})" if row.status else ""))


def failures(frame: pd.DataFrame) -> str:
    """The runs without a score: "seed 2 diverged, seed 3 failed (timeout)"."""
    lacking = frame.drop(index=scored(frame).index)
    return ", ".join(
        f"{_seed(index, line)} {str(line['status']).replace('_', ' ')}"
        + ("" if pd.isna(line["failure"]) else f" ({line['failure']})")
        for index, line in lacking.iterrows()
    )


def _seed(index: object, line: pd.Series) -> str:
    """A final run is known by its seed, a teacher by its directory until it has one."""
    if isinstance(index, str):
        return index if pd.isna(line["seed"]) else f"seed {line['seed']}"
    return f"seed {index}"
