"""Find the trial that a user names: by its directory, or by its row."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd.command import study_name
from mmkd.errors import UserError, choose, errors_about
from mmkd.formatting import replicate_title
from mmkd.records import StudyRecord, WinnerRecord, find_record, read_record, read_study, study_names
from mmkd.result_file import ResultError, Status, read_result
from mmkd.rundir import Root, RowDir, TrialDir

KINDS = ("trials", "confirm")


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add --trial, --root and --superseded, see `find_student`."""
    parser.add_argument(
        "--trial",
        required=True,
        metavar="ROW_OR_DIR",
        help="a row's name or directory, for its winner's finished final run with the lowest seed ('ROW r3': of "
        "replicate 3); ROW/confirm/SEED or ROW/trials/N; or a trial's directory",
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where rows are looked up (default: ./runs)")
    parser.add_argument(
        "--study", type=study_name, metavar="NAME", help="the row's study, if several have a row of that name"
    )
    parser.add_argument("--superseded", action="store_true", help="allow a final run of a former winner")


def find_student(options: argparse.Namespace) -> TrialDir:
    """The trial that --trial names; says which if it names a row.

    Raises:
        UserError: there is no such trial or row, there are several, the row has no winner yet, or the trial is a final
            run of a former winner and --superseded is not given.
    """
    subject = f"--trial {options.trial}"
    path = Path(options.trial)
    kind, name = path.parts[-2:] if len(path.parts) > 1 else ("", "")
    if path.is_dir() and not RowDir(path).row.exists():
        trial = TrialDir(path)
    elif kind in KINDS:
        row = find_row(path.parents[1], options.root, subject, options.study)
        trial = _only(row, row.final_runs() if kind == "confirm" else row.trials(), name, subject)
    else:
        trial = _final_run(find_row(path, options.root, subject, options.study), subject)
    row = RowDir(trial.path.absolute().parents[1])
    if trial.path.absolute().parent.name == "confirm" and row.winner.exists() and not options.superseded:
        winner = read_record(row.winner, WinnerRecord)
        if trial.path.name not in winner.confirm.values():
            raise UserError(
                f"{subject}: a final run of a former winner; the row's winner is trial {winner.trial} now. Name the "
                f"row to use its current final run, or give --superseded"
            )
    return trial


def find_row(named: Path, root: Path, subject: str, study: str | None = None) -> RowDir:
    """The row at a path, or under `root` the row of a directory's name, of its beginning, or of a name in a study.

    Args:
        named: the path or name.
        root: the root.
        subject: what an error's message begins with.
        study: consider the rows and names of this study alone.

    Returns:
        the row; of a row with several replicates the first.

    Raises:
        UserError: there is none, or several have the name; or there is no such study.
    """
    for path in (named, root / named, root / "rows" / named):
        if RowDir(path).row.exists():
            return RowDir(path)
    rows = Root(root).rows()
    if study is not None:
        directories = {row.directory for row in read_study(root, study).rows}
        rows = [row for row in rows if row.path.name in directories]
    if not rows or len(named.parts) > 1:
        raise UserError(f"{subject}: no such trial or row; give its directory, or a row's name under --root {root}")
    known = _names(Root(root), rows, study_names(root) if study is None else [study])
    with errors_about(subject):
        name = choose("row", named.name, set().union(*known.values()))
    found = [row for row in rows if name in known[row.path.name]]
    first = _first_replicate(Root(root), found, study_names(root) if study is None else [study])
    if first is not None:
        return first
    if len(found) > 1:
        names = ", ".join(row.path.name for row in found)
        raise UserError(f"{subject}: names several rows: {names}; choose one, or give --study")
    return found[0]


def _first_replicate(root: Root, found: Sequence[RowDir], studies: Sequence[str]) -> RowDir | None:
    """The first of several replicates of one row of a study; None if they are no such replicates."""
    directories = {row.path.name: row for row in found}
    for study in studies if len(found) > 1 else ():
        record = find_record(root.study(study), StudyRecord)
        same = [row for row in record.rows if row.directory in directories] if record else []
        if len(same) == len(found) and len({row.name for row in same}) == 1:
            return directories[min(same, key=lambda row: row.replicate).directory]
    return None


def _names(root: Root, rows: Sequence[RowDir], studies: Sequence[str]) -> dict[str, set[str]]:
    """Names of each row by its directory: the directory's without the hash, and those that studies give it."""
    known = {row.path.name: {row.name} for row in rows}
    for study in studies:
        record = find_record(root.study(study), StudyRecord)
        for row in record.rows if record else ():
            known.get(row.directory, set()).add(replicate_title(row.name, row.replicate))
    return known


def _final_run(row: RowDir, subject: str) -> TrialDir:
    """The finished final run of the row's winner with the lowest seed, which nobody chose by its score. Print it.

    Raises:
        UserError: the row has no winner yet, or none of its final runs is finished.
    """
    if not row.winner.exists():
        raise UserError(f"{subject}: row {row.path.name} has no winner yet; its trials are not finished")
    winner = read_record(row.winner, WinnerRecord)
    for seed, name in sorted(winner.confirm.items()):
        trial = TrialDir(row.path / "confirm" / name)
        try:
            if read_result(trial.result, predictions=False).status is Status.COMPLETE:
                print(f"using {trial.path} (seed {seed} of the row's winner, trial {winner.trial})")
                return trial
        except (FileNotFoundError, ResultError):
            continue
    raise UserError(f"{subject}: row {row.path.name} has no finished final run of its winner, trial {winner.trial}")


def matching(trials: Sequence[TrialDir], name: str) -> list[TrialDir]:
    """The trials of that name; else those of that seed; else those whose names begin so."""
    exact = [trial for trial in trials if trial.path.name == name]
    seed = [trial for trial in trials if trial.path.name.partition("-")[0] == name]
    return exact or seed or [trial for trial in trials if name and trial.path.name.startswith(name)]


def _only(row: RowDir, trials: Sequence[TrialDir], name: str, subject: str) -> TrialDir:
    """The only one of `trials` that `name` matches.

    Raises:
        UserError: there is none or several; lists them.
    """
    found = matching(trials, name)
    if len(found) == 1:
        return found[0]
    winner = read_record(row.winner, WinnerRecord).confirm.values() if row.winner.exists() else ()
    known = [f"{trial.path.name}{' (the winner)' * (trial.path.name in winner)}" for trial in found or trials]
    trouble = "names several" if found else f"row {row.path.name} has no such trial"
    raise UserError(f"{subject}: {trouble}; choose one of: {', '.join(known) or 'none'}")
