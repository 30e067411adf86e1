"""Select the trials of all rows of a study at once: a replicate's, or a row's, are then slices of one frame.

A selection from a frame of mixed columns takes milliseconds, and a study may have hundreds of replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmkd.config import SEEDS_PER_REPLICATE
from mmkd.records import StudyRow
from mmkd.result_file import Status

MISSING = "missing"


class StudyFrames:
    """The frames of a study's replicates one after the other, by kind: see the properties of `Selected`."""

    def __init__(self, frames: Mapping[str, pd.DataFrame]) -> None:
        self.frames = frames
        self._lists: dict[tuple[str, str], list[Any]] = {}

    def column(self, kind: str, name: str) -> list[Any]:
        """A column as a list, made once."""
        if (kind, name) not in self._lists:
            self._lists[kind, name] = list(self.frames[kind][name])
        return self._lists[kind, name]


@dataclass(frozen=True)
class Selected:
    """The trials of a replicate, or of all replicates of a row; the base of `ReplicateRuns` and `RowRuns`.

    Attributes:
        study: the frames of the whole study.
        spans: where this one's lines are in each, by kind.
    """

    study: StudyFrames
    spans: Mapping[str, slice]

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """The tuning trials; their numbers begin at 0 in each replicate."""
        return self._slice("tuning")

    @cached_property
    def final_runs(self) -> pd.DataFrame:
        """One line per seed that the study asks for, by the seed in its configuration.

        That is 10,000 times the replicate plus the seed within it. The status of a line whose directory is missing or
        rejected is "missing".
        """
        return self._slice("final_runs")

    @cached_property
    def teachers(self) -> pd.DataFrame:
        """One line per teacher that the final runs name, by its directory."""
        return first_lines(self._slice("teachers"))

    @cached_property
    def superseded(self) -> pd.DataFrame:
        """Final runs of former winners."""
        return self._slice("superseded")

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The final runs that have a score."""
        return self._slice("measured")

    @cached_property
    def measured_teachers(self) -> pd.DataFrame:
        """The teachers that have a score."""
        return first_lines(self._slice("measured_teachers"))

    @cached_property
    def teacher_trials(self) -> pd.DataFrame:
        """The teachers that were tried to choose one in each replicate; none where teachers are not tuned."""
        return first_lines(self._slice("teacher_trials"))

    @property
    def trials(self) -> pd.DataFrame:
        """The tuning trials, the final runs and the teachers; see `values` for one column."""
        return pd.concat([self.tuning, self.final_runs, self.teachers])

    def values(self, column: str, kinds: Sequence[str] = ("tuning", "final_runs", "teachers")) -> list[Any]:
        """A column of these kinds of trials as a list, without the cost of a frame; teachers as often as they occur."""
        return [value for kind in kinds for value in self.study.column(kind, column)[self.spans[kind]]]

    def _slice(self, kind: str) -> pd.DataFrame:
        return self.study.frames[kind].iloc[self.spans[kind]]


def select_trials(trials: pd.DataFrame, specs: Sequence[StudyRow]) -> tuple[StudyFrames, list[Mapping[str, slice]]]:
    """The frames of a study's replicates, and each one's spans.

    Args:
        trials: of the root, by directory.
        specs: the replicates, in the order that the frames are to have.
    """
    found = _Positions(trials)
    parts = [found.of(spec) for spec in specs]
    frames = {kind: trials.take(_joined(part[kind] for part in parts)) for kind in ("tuning", "superseded")}
    kinds = ("tuning", "superseded", "final_runs", "teachers", "teacher_trials")
    spans = {kind: _spans([part[kind] for part in parts]) for kind in kinds}
    seeds, names, tried = ([key for part in parts for key in part[keys]] for keys in ("seeds", "names", "tried"))
    frames["final_runs"] = _lines(trials, _joined(part["final_runs"] for part in parts), seeds)
    frames["teacher_trials"] = _lines(trials, _joined(part["teacher_trials"] for part in parts), tried)
    teachers = _lines(trials, _joined(part["teachers"] for part in parts), names)
    # The runs know their teachers' families also where a teacher's directory is missing.
    runs = _joined(part["taught"] for part in parts)
    families = {column: trials[column].take(runs).set_axis(teachers.index) for column in ("teacher_family", "branch")}
    frames["teachers"] = teachers.assign(**families)
    for kind, measured in (("final_runs", "measured"), ("teachers", "measured_teachers")):
        has_score = is_scored(frames[kind])
        frames[measured] = frames[kind][has_score]
        before = np.concatenate([[0], np.cumsum(has_score)])
        spans[measured] = [slice(int(before[span.start]), int(before[span.stop])) for span in spans[kind]]
    return StudyFrames(frames), [{kind: spans[kind][number] for kind in spans} for number in range(len(specs))]


def joined_spans(spans: Sequence[Mapping[str, slice]]) -> Mapping[str, slice]:
    """The span of replicates that follow each other."""
    return {kind: slice(spans[0][kind].start, spans[-1][kind].stop) for kind in spans[0]}


class _Positions:
    """Finds the lines of a replicate in the frame of all trials."""

    def __init__(self, trials: pd.DataFrame) -> None:
        self.by_row = trials.groupby("row").indices
        self.kind = trials["kind"].to_numpy(object)
        self.is_superseded = trials["superseded"].to_numpy(bool)
        self.names = list(trials["directory"])
        self.place = {name: number for number, name in enumerate(self.names)}
        self.teacher = [name if isinstance(name, str) else None for name in trials["teacher"]]

    def of(self, spec: StudyRow) -> dict[str, list[Any]]:
        """Positions by kind (-1: missing), seeds of final runs, and names of teachers and of tried teachers.

        `taught` are the runs that name the teachers.
        """
        own = self.by_row.get(spec.directory, np.zeros(0, np.intp))
        finals = own[self.kind[own] == "confirm"]
        first_seed = SEEDS_PER_REPLICATE * spec.replicate
        by_seed: dict[int, int] = {}
        for place in finals[~self.is_superseded[finals]]:
            # By the seed in the directory's name: a configuration with another one is for the checks to find.
            seed = self.names[place].rpartition("/")[2].partition("-")[0]
            if seed.isdecimal():
                by_seed.setdefault(int(seed), int(place))
        seeds = list(dict.fromkeys(spec.seeds))
        runs = [by_seed.get(seed, -1) for seed in seeds]
        taught: dict[str, int] = {}
        for place in runs:
            teacher = self.teacher[place] if place >= 0 else None
            if teacher is not None:
                taught.setdefault(teacher, place)
        tried = [f"teachers/{name}" for name in spec.candidates]
        return {
            "tuning": list(own[self.kind[own] == "tuning"]),
            "superseded": list(finals[self.is_superseded[finals]]),
            "final_runs": runs,
            "seeds": [first_seed + seed for seed in seeds],
            "teachers": [self.place.get(name, -1) for name in taught],
            "names": list(taught),
            "taught": list(taught.values()),
            "teacher_trials": [self.place.get(name, -1) for name in tried],
            "tried": tried,
        }


def _joined(parts: Iterable[Sequence[int]]) -> NDArray[np.intp]:
    return np.array([place for part in parts for place in part], np.intp)


def _spans(parts: Sequence[Sequence[int]]) -> list[slice]:
    ends = np.cumsum([0, *map(len, parts)])
    return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]


def _lines(trials: pd.DataFrame, places: NDArray[np.intp], keys: Sequence[int | str]) -> pd.DataFrame:
    """One line per place, by its key; those of -1 are missing."""
    lines = trials.set_axis(range(len(trials))).reindex(places) if (places < 0).any() else trials.take(places)
    superseded = lines["superseded"].fillna(False).astype(bool)
    lines = lines.assign(status=lines["status"].fillna(MISSING), superseded=superseded)
    return lines.set_axis(pd.Index(list(keys), dtype=None if keys else object))


def first_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """The first of the lines with the same index."""
    return frame if frame.index.is_unique else frame[~frame.index.duplicated()]


def is_scored(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """A mask of the runs that completed and were measured on test."""
    complete = frame["status"].to_numpy(object) == Status.COMPLETE
    return np.asarray(complete & frame["test_accuracy"].notna().to_numpy())
