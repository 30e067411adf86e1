"""One replicate of a study's row: the trials that count for it, and its progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from mmkd.config import SEEDS_PER_REPLICATE
from mmkd.records import StudyRow
from mmkd.result_file import Status
from mmkd.trial_state import State

FINISHED = tuple(Status)
MISSING = "missing"


@dataclass(frozen=True)
class ReplicateRuns:
    """A replicate of a row and its trials.

    `row` is its line in `Runs.rows`, None where there is none; `tuning` are its tuning trials; `final_runs` has one
    line per seed that the study asks for, by the seed in its configuration (10,000 times the replicate plus the seed
    within it); `teachers` one line per teacher that these runs name; the status of a line whose directory is missing
    or rejected is "missing"; `superseded` are final runs of former winners; `teacher_trials` are the teachers
    of which one was chosen, none where teachers are not tuned. `title` is the row's, with the number of the replicate
    if it is not the first.
    """

    spec: StudyRow
    title: str
    row: pd.Series | None
    tuning: pd.DataFrame
    final_runs: pd.DataFrame
    teachers: pd.DataFrame
    superseded: pd.DataFrame
    teacher_trials: pd.DataFrame

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The final runs that have a score."""
        return scored(self.final_runs)

    @cached_property
    def measured_teachers(self) -> pd.DataFrame:
        """The teachers that have a score."""
        return scored(self.teachers)

    @property
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
        """Its progress, or why it failed; empty once every seed has ended and one or more has a score."""
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


def collect_replicate(
    spec: StudyRow, title: str, lines: pd.DataFrame, own: pd.DataFrame | None, trials: pd.DataFrame
) -> ReplicateRuns:
    """From the replicate's line, if there is one, its own trials, if there are any, and all trials."""
    own = trials.iloc[:0] if own is None else own
    confirms = own[own["kind"] == "confirm"]
    counting = confirms[~confirms["superseded"]]
    # By the seed in the directory's name: a configuration with another one is for the checks to find.
    seeds = counting["directory"].str.extract(r"/(\d+)-[^/]*$")[0].astype("Int64")
    first_seed = SEEDS_PER_REPLICATE * spec.replicate
    wanted = [first_seed + seed for seed in dict.fromkeys(spec.seeds)]
    final_runs = _lines(first_lines(counting.set_index(first_seed + seeds)), wanted)
    teachers = _lines(trials, list(final_runs["teacher"].dropna().unique()))
    # The runs know their teachers' families also where a teacher's directory is missing.
    families = final_runs.dropna(subset=["teacher"]).drop_duplicates("teacher").set_index("teacher")
    teachers = teachers.assign(teacher_family=families["teacher_family"], branch=families["branch"])
    row = None if lines.empty else lines.iloc[0]
    tuning, superseded = own[own["kind"] == "tuning"], confirms[confirms["superseded"]]
    name = f"{title} r{spec.replicate}" if spec.replicate else title
    tried = _lines(trials, [f"teachers/{teacher}" for teacher in spec.candidates])
    return ReplicateRuns(spec, name, row, tuning, final_runs, teachers, superseded, tried)


def first_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """The first of the lines with the same index."""
    return frame[~frame.index.duplicated()]


def _lines(frame: pd.DataFrame, keys: Sequence[int] | Sequence[object]) -> pd.DataFrame:
    """One line per key, in their order."""
    frame = frame.reindex(list(keys))
    return frame.assign(status=frame["status"].fillna(MISSING))


def ended(frame: pd.DataFrame) -> pd.Series[bool]:
    """True for trials that have a result, or have failed (no retries left)."""
    return frame["status"].isin((*FINISHED, State.FAILED))


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that completed and were measured on test."""
    return frame[(frame["status"] == Status.COMPLETE) & frame["test_accuracy"].notna()]


def failures(frame: pd.DataFrame) -> str:
    """The runs without a score: "seed 2 diverged, seed 3 failed (timeout)"."""
    lacking = frame.drop(index=scored(frame).index)
    return ", ".join(
        f"{_seed(index, line)} {_words(str(line['status']))}"
        + ("" if pd.isna(line["failure"]) else f" ({line['failure']})")
        for index, line in lacking.iterrows()
    )


def _words(status: str) -> str:
    return "has no accuracy on test" if status == Status.COMPLETE else status.replace("_", " ")


def _seed(index: object, line: pd.Series) -> str:
    """A final run is known by its seed, a teacher by its directory until it has one."""
    if not isinstance(index, str):
        return seed_name(int(str(index)))
    return index if pd.isna(line["seed"]) else seed_name(int(line["seed"]))


def seed_name(seed: int) -> str:
    """A seed of a configuration as people know it: `seed 2`, in replicate 3 `r3 seed 2`."""
    replicate, within = divmod(seed, SEEDS_PER_REPLICATE)
    return f"r{replicate} seed {within}" if replicate else f"seed {within}"
