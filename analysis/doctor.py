"""Examine a root: account for every directory, and report what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.checks.finding import EXTENDED, REMARK, Finding, first_few
from analysis.checks.journals import changed_journals
from analysis.checks.results import wrong_results
from analysis.loading.replicate_runs import FINISHED, ReplicateRuns, ended
from analysis.loading.runs import Runs
from analysis.loading.study_rows import StudyRuns, collect
from analysis.tables.checks import check_rows
from analysis.tables.plan_checks import check_plans
from mmkd.errors import UserError
from mmkd.finished import describe, read_finished
from mmkd.formatting import count
from mmkd.records import as_written, differences
from mmkd.result_file import ResultError, Status
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State

IN_A_TABLE = "in a table"
UNFINISHED = "unfinished"
"""Trials that run or will run, and rows that wait for them: nothing is wrong with them."""


@dataclass(frozen=True)
class Examination:
    """The findings, and the `fates`: one line for each directory (`directory`, `fate`)."""

    fates: pd.DataFrame
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings, less remarks and what is unfinished."""
        return tuple(finding for finding in self.findings if finding.kind not in (REMARK, EXTENDED, UNFINISHED))

    def tested(self, runs: Runs) -> list[str]:
        """The final runs and teachers that tables show and that completed."""
        shown = runs.trials["directory"].isin(self.fates.loc[self.fates["fate"] == IN_A_TABLE, "directory"])
        complete = runs.trials["status"] == Status.COMPLETE
        return list(runs.trials[shown & complete & (runs.trials["kind"] != "tuning")]["directory"])


def examine(runs: Runs) -> Examination:
    """Examine everything under a root; reads the predictions of all runs that tables show.

    Trials with a line in a `finished.jsonl` are read from their directories, too, and compared with it.
    """
    studies, broken = _studies(runs)
    rows = [(name, row) for name, study in studies.items() for row in study.rows]
    replicates = [(name, one) for name, row in rows for one in row.replicates]
    fates = _fates(runs, [one for _, one in replicates])
    wrong_lines = dict(_wrong_lines(runs))
    shown = set(fates.loc[fates["fate"] == IN_A_TABLE, "directory"]) - wrong_lines.keys()
    used = runs.trials[runs.trials["directory"].isin(shown)]
    findings = [
        *broken,
        *_whole_root(runs, fates),
        *(
            Finding("failed", f"study {name}: {one.title}: {one.status}")
            for name, one in replicates
            if one.status.startswith("failed")
        ),
        *(
            Finding(finding.kind, f"study {name}: {finding.text}")
            for name, study in studies.items()
            for finding in check_rows(runs, study.rows)
            if finding.kind not in ("rejected", "replicates")
        ),
        *(
            Finding("plan" if is_wrong else REMARK, text)
            for text, is_wrong in check_plans(Root(runs.root), {name: study.record for name, study in studies.items()})
        ),
        *(Finding("finished.jsonl", text) for text in wrong_lines.values()),
        *(finding for _, one in replicates if one.facts is not None for finding in changed_journals(runs, one)),
        *wrong_results(runs, used[used["status"].isin(FINISHED)]),
    ]
    return Examination(fates, tuple(findings))


def _studies(runs: Runs) -> tuple[dict[str, StudyRuns], list[Finding]]:
    studies, broken = {}, []
    for name in runs.studies["study"].unique():
        try:
            studies[name] = collect(runs, name)
        except UserError as error:
            broken.append(Finding("studies", str(error).replace(f"{runs.root}/", "")))
    return studies, broken


def _fates(runs: Runs, rows: Sequence[ReplicateRuns]) -> pd.DataFrame:
    """The use of each directory, given the rows of all studies. Teachers that were tried for them count as shown."""
    trials = runs.trials
    of_a_study = trials["row"].isin({one.spec.directory for one in rows})
    shown = {name for one in rows for name in (*one.tuning["directory"], *one.final_runs["directory"].dropna())}
    candidates = {f"teachers/{name}" for one in rows for name in one.spec.candidates}
    is_shown, is_teacher = trials["directory"].isin(shown), trials["kind"] == "teacher"
    fates = pd.Series("teachers of runs that no table shows", trials.index).mask(~is_teacher, "of a row in no study")
    fates = fates.mask(of_a_study, "of a seed that no study asks for").mask(is_shown, IN_A_TABLE)
    fates = fates.mask(of_a_study & trials["superseded"], "superseded")
    teachers = {*trials.loc[is_shown, "teacher"].dropna(), *candidates}
    fates = fates.mask(is_teacher & trials["directory"].isin(teachers), IN_A_TABLE)
    paths = runs.rejected["path"]
    rejected = pd.DataFrame({"directory": paths[~paths.str.startswith("studies/")], "fate": "rejected"})
    return pd.concat([pd.DataFrame({"directory": trials["directory"], "fate": fates}), rejected], ignore_index=True)


def _whole_root(runs: Runs, fates: pd.DataFrame) -> Iterator[Finding]:
    for path, reason in runs.rejected.itertuples(index=False):
        yield Finding("rejected", f"{path}: {reason.removeprefix(f'{path}: ')}")
    trials = runs.trials
    failed = trials[trials["status"] == State.FAILED]
    for line in failed.to_dict("records"):
        yield Finding("failed", f"{line['directory']}: {line['failure']}: {line['message'] or 'no message'}")
    unfinished = trials[~ended(trials) & (trials["status"] != State.SUPERSEDED)]
    due = unfinished["status"] == State.RETRY_DUE
    for state, some in unfinished.groupby(
        unfinished["status"].mask(due, "to be retried after " + unfinished["failure"])
    ):
        yield Finding(UNFINISHED, f"trials that are {state}: {len(some)} ({first_few(some['directory'])})")
    diverged = trials[trials["status"] == Status.DIVERGED]
    if len(diverged):
        yield Finding(REMARK, f"trials that diverged: {len(diverged)} ({first_few(diverged['directory'])})")
    alone = fates[fates["fate"] == "of a row in no study"]["directory"].str.split("/").str[1]
    for row in dict.fromkeys(alone):
        yield Finding(REMARK, f"rows/{row}: in no study's table")
    if fates.empty:
        yield Finding(REMARK, "no trial at all")


def _wrong_lines(runs: Runs) -> Iterator[tuple[str, str]]:
    """Trials whose line in their row's `finished.jsonl` holds and says something else than their directory."""
    for row in Root(runs.root).rows():
        for name, line in read_finished(row).trials.items():
            directory = f"rows/{row.path.name}/{name}"
            remedy = f"remove {row.finished.relative_to(runs.root)}, which is made again"
            try:
                found, _ = describe(TrialDir(runs.root / directory))
            except (UserError, ResultError, OSError) as error:
                reason = str(error).replace(f"{runs.root}/", "")
                yield directory, f"{directory}: its line hides that it cannot be read: {reason}; {remedy}"
                continue
            both = differences([as_written(line), as_written(found)]).items()
            differing = [(key, *pair) for key, pair in both if repr(pair[0]) != repr(pair[1])]  # NaN equals nothing
            if differing:
                key, ours, theirs = differing[0]
                yield directory, f"{directory}: its line has {key} {ours!r}, its directory {theirs!r}; {remedy}"


def examination_text(found: Examination) -> str:
    """The examination in lines, one per finding."""
    counts = found.fates["fate"].value_counts()
    lines = [f"{len(found.fates)} directories: " + ", ".join(f"{n} {fate}" for fate, n in counts.items())]
    lines += [f"{finding.kind}: {finding.text}" for finding in found.findings]
    wrong = len(found.problems)
    verb = "is" if wrong == 1 else "are"
    lines.append(f"{count(wrong, 'thing')} {verb} wrong" if wrong else "nothing is wrong")
    return "\n".join(lines) + "\n"
