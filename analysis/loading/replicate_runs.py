"""One replicate of a study's row: the trials that count for it, and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.loading.study_trials import Selected, is_scored
from mmkd.config import SEEDS_PER_REPLICATE
from mmkd.records import StudyRow
from mmkd.result_file import Status
from mmkd.trial_state import State

FINISHED = tuple(Status)


@dataclass(frozen=True, kw_only=True)
class ReplicateRuns(Selected):
    """A replicate of a row and its trials.

    `facts` is its line in `Runs.rows`, None where there is none. `title` is the row's, with the number of the replicate
    if it is not the first.
    """

    spec: StudyRow
    title: str
    facts: Mapping[str, Any] | None

    @property
    def row(self) -> pd.Series | None:
        """Its line in `Runs.rows` as a series."""
        return None if self.facts is None else pd.Series(self.facts, dtype=object)

    def fact(self, column: str) -> str:
        """A column of the row's line in `Runs.rows`, as text; empty where it is not known."""
        value = None if self.facts is None else self.facts.get(column)
        return "" if value is None or pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def winner(self) -> int | None:
        """The number of the winning tuning trial; None while there is none."""
        return self._whole("winner_trial")

    @property
    def sampled(self) -> int:
        """Tuning trials that the winner was chosen from, failed ones too; while tuning, those that are planned."""
        sampled = self._whole("sampled")
        return self.spec.trials if sampled is None else sampled

    def _whole(self, column: str) -> int | None:
        value = None if self.facts is None else self.facts[column]
        return None if value is None or pd.isna(value) else int(value)

    @property
    def finished(self) -> int:
        """Tuning trials with a result, of those that the winner was chosen from."""
        numbers = self._whole("numbers")
        trials = zip(self.values("number", ["tuning"]), self.values("status", ["tuning"]), strict=True)
        return sum(status in FINISHED and (numbers is None or number < numbers) for number, status in trials)

    @cached_property
    def status(self) -> str:
        """Its progress, or why it failed; empty once every seed has ended and one or more has a score."""
        if self.facts is None:
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


def ended(frame: pd.DataFrame) -> pd.Series[bool]:
    """True for trials that have a result, or have failed (no retries left)."""
    return frame["status"].isin((*FINISHED, State.FAILED))


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that completed and were measured on test."""
    return frame[is_scored(frame)]


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
