"""All runs under a root as tidy data frames; nothing disappears: what cannot be used is in `rejected`, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.loading.frames import ATTEMPTS, REJECTED, ROWS, STUDIES, TRIALS, curves_frame, frame, natural, typed
from analysis.loading.predictions import predictions_of
from analysis.loading.read_row import read_row
from analysis.loading.read_trial import Reading, attempt_line, read_curves, read_trial
from mmkd.attempts import Attempt
from mmkd.errors import UserError
from mmkd.formatting import count
from mmkd.records import RowRecord, SplitRecord, StudyRecord, WinnerRecord, as_written, read_record, study_names
from mmkd.records.schema import R
from mmkd.result_file import Status
from mmkd.rundir import Root, RowDir

__all__ = ["Runs", "load"]

Rejects = list[tuple[str, str]]
"""Paths and why they are in no frame."""


@dataclass(frozen=True, eq=False)  # hashed by identity, see `study_rows.collect`
class Runs:
    """The content of a root. A trial is known by its `directory`, relative to the root; a row by its directory's name.

    Attributes:
        root: the directory of all of it.
        studies: one line per study and row, in the study's order: what the study calls the row (`name`, `label`,
            `group`), which `row` that is (studies share rows), whether it is the control, and the trials and seeds
            that the study asks for. A replicated row has a line for each `replicate`.
        rows: one line per row and replicate; `replicate` counts from 0, and `split` is the digest of the drawn split,
            missing where the file's own parts are used. `name` is the beginning of its directory's, which several rows
            of a study may share; `sampled` (trials; their numbers are below `numbers`, which counts trials that were
            tried again twice) and `winner_*` are missing while it is tuned. All that decides the row follows, one
            column per value: `space.beta.high`, `training.epochs`, `student.width`.
        trials: one line per trial directory; `kind` is tuning, confirm or teacher. `seed` is the configuration's,
            10,000 times `replicate` plus the seed within the replicate; `split` is as in `rows`, and `test_groups` are
            the groups of its test part (subjects, speakers, videos), joined by commas. `status` is complete, pruned or
            diverged, else the state (`mmkd.trial_state`); `failure` is the class of the last attempt of a trial that
            has failed or is to be retried. `superseded` is a final run that winner.json does not name. `teacher` is the
            teacher's directory (a teacher's own), `teacher_family` is what its seeds and splits share. `seconds` are
            the result's, else those that its attempts recorded; `gpu_seconds` those that a cluster counted. `commit` is
            the last attempt's, with `+<hash>` where the code was changed since; `weights` a checksum. Metrics are
            called `<split>_<metric>`; the five that every table shows come first, the others follow by name.
        rejected: what is in no frame, and why.
        recorded: the attempts of each directory in `trials`.
    """

    root: Path
    studies: pd.DataFrame
    rows: pd.DataFrame
    trials: pd.DataFrame
    rejected: pd.DataFrame
    recorded: Mapping[str, Sequence[Attempt]]

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One line per attempt as the job recorded it; the controller's facts are called `submitted.<key>`."""
        lines = (attempt_line(name, attempt) for name, attempts in self.recorded.items() for attempt in attempts)
        return frame(lines, ATTEMPTS)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The curves of all trials, see `curves_of`: opens every result when first asked for."""
        return self.curves_of(list(self.trials["directory"]))

    def curves_of(self, directories: Sequence[str]) -> pd.DataFrame:
        """One line per trial and epoch (from 1) of these trials, also of those that are not finished.

        Raises:
            ResultError: a result cannot be read.
        """
        return curves_frame({directory: read_curves(self.root / directory) for directory in directories})

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The stored outputs of every final run that counts and of every teacher, read when first asked for.

        See `analysis.loading.predictions.predictions_of`, which also reads those of other trials.
        """
        trials = self.trials
        wanted = trials[(trials["kind"] != "tuning") & ~trials["superseded"] & (trials["status"] == Status.COMPLETE)]
        return predictions_of(self.root, list(wanted["directory"]))


def load(root: Path | str, *, cache: bool = True, tell: Callable[[str], object] = lambda what: None) -> Runs:
    """Read everything under `root` but curves and predictions, which are read when they are asked for.

    Args:
        root: the directory of the launched studies.
        cache: use and renew the rows' `finished.jsonl`; where the root cannot be written, they stay as they are.
        tell: called with the next step, as it may take minutes.

    Raises:
        UserError: there is no such directory, or nothing of a launch in it.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; --root is the directory of the launched studies")
    if not any((path / part).is_dir() for part in ("rows", "teachers", "studies")):
        raise UserError(f"{path}: no rows, teachers or studies in it; --root is the directory of the launched studies")
    rows: list[dict[str, Any]] = []
    rejects: Rejects = []
    readings: list[Reading] = []
    counting: set[str] = set()
    for row in Root(path).rows():
        name = f"rows/{row.path.name}"
        winner = _read(row.winner, WinnerRecord, f"{name}/{row.winner.name}", rejects) if row.winner.exists() else None
        record = _read(row.row, RowRecord, name, rejects)
        if record is not None:
            rows.append(_row_line(row, record, winner))
        own = read_row(path, row, [*row.trials(), *row.final_runs()], use_cache=cache, tell=tell)
        readings += own
        rejects += _strays(row.path, name, {reading.directory for reading in own})
        counting |= _counting(name, own, winner)
    readings += [read_trial(path, f"teachers/{teacher.path.name}") for teacher in Root(path).teachers()]
    others = sorted(file for file in (*path.glob("rows/*"), *path.glob("teachers/*")) if not file.is_dir())
    rejects += [(file.relative_to(path).as_posix(), "not a directory") for file in others]
    studies = frame(_study_lines(path, rejects), STUDIES)
    good = [reading for reading in readings if not reading.reason]
    trials = typed(pd.DataFrame([reading.trial for reading in good]), TRIALS)
    groups = _test_groups(Root(path), trials["split"].dropna().unique(), rejects)
    rejects = [(name, why.replace(f"{path}/", "")) for name, why in rejects]
    rejects += [(reading.directory, reading.reason) for reading in readings if reading.reason]
    return Runs(
        path,
        studies,
        frame(rows, ROWS),
        _located(trials, counting, groups),
        frame([{"path": name, "reason": why} for name, why in rejects], REJECTED),
        {reading.directory: reading.attempts for reading in good},
    )


def _counting(row: str, readings: Sequence[Reading], winner: WinnerRecord | None) -> set[str]:
    """The final runs of the winner: those that it names, and those of seeds that its last launch did not ask for."""
    if winner is None:
        return set()
    marks = {run.rpartition("-")[2] for run in winner.confirm.values()}
    runs = {r.directory for r in readings if r.directory.startswith(f"{row}/confirm/")}
    return {run for run in runs if run.rpartition("-")[2] in marks}


def _read(path: Path, schema: type[R], name: str, rejects: Rejects) -> R | None:
    """A record; None where it cannot be read, with the reason in `rejects` under `name`."""
    try:
        return read_record(path, schema)
    except UserError as error:
        rejects.append((name, str(error)))
        return None


def _row_line(row_dir: RowDir, row: RowRecord, winner: WinnerRecord | None) -> dict[str, Any]:
    won: dict[str, Any] = {}
    if winner is not None:
        won = {"sampled": winner.trials, "numbers": winner.numbers}
        won |= {"winner_trial": winner.trial, "winner_value": winner.value}
    name = {"row": row_dir.path.name, "name": row_dir.name, "digest": row.digest}
    decided = {"pruner": row.identity.pruner, **as_written(row.identity)}
    decided |= {"replicate": row.identity.replicate, "split": row.identity.split or None}
    decided = {key: value for key, value in decided.items() if value is not None and key != "data"}
    data = row.data.model_dump(include={"source", "fingerprint", "steps"})
    data["modalities"] = ", ".join(row.data.modalities)
    return {**name, **decided, **data, **won}


def _study_lines(root: Path, rejects: Rejects) -> Iterator[dict[str, Any]]:
    """One line per study and row; studies that cannot be read are added to `rejects`."""
    for name in study_names(root):
        path = Root(root).study(name)
        study = _read(path, StudyRecord, path.relative_to(root).as_posix(), rejects)
        if study is None:
            continue
        for row in study.rows:
            facts = {"study": name, "row": row.directory, "control": row.name == study.control, "seeds": len(row.seeds)}
            yield row.model_dump(include={"name", "label", "group", "replicate", "trials"}) | facts


def _strays(directory: Path, row: str, known: set[str]) -> Iterator[tuple[str, str]]:
    """Directories of a row that are no trials'."""
    for part in sorted(os.listdir(directory)):
        if part.startswith("failed-"):
            trials = sum(1 for _ in (directory / part).glob("trials/*"))
            yield (
                f"{row}/{part}",
                f"{count(trials, 'trial')}, set aside when none of them had completed; the row began again",
            )
        elif part in ("trials", "confirm"):
            for name in sorted(os.listdir(directory / part)):
                if f"{row}/{part}/{name}" not in known:
                    yield f"{row}/{part}/{name}", "not the name of a trial's directory"
        elif (directory / part).is_dir():
            yield f"{row}/{part}", "nothing that a launch makes"


def _located(trials: pd.DataFrame, counting: set[str], groups: Mapping[str, str]) -> pd.DataFrame:
    """The trials with what their path says: kind, row, number, and for final runs whether they count; and groups."""
    parts = trials["directory"].str.split("/", expand=True).reindex(columns=range(4))
    kinds = parts[2].map({"trials": "tuning", "confirm": "confirm"}).fillna("teacher")
    return typed(
        trials.assign(
            kind=kinds,
            row=parts[1].where(kinds != "teacher"),
            number=pd.to_numeric(parts[3].where(kinds == "tuning")),
            superseded=(kinds == "confirm") & ~trials["directory"].isin(counting),
            test_groups=trials["split"].map(groups).astype("string"),
        ),
        TRIALS,
    )


def _test_groups(root: Root, splits: Iterable[str], rejects: Rejects) -> dict[str, str]:
    """The groups of the test part of each drawn split, in natural order; those that cannot be read are rejected."""
    found = {}
    for digest in splits:
        path = root.split(digest)
        record = _read(path, SplitRecord, path.relative_to(root.path).as_posix(), rejects) if path.exists() else None
        if record is not None:
            found[digest] = ", ".join(sorted(record.parts["test"], key=natural))
    return found
