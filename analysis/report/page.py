"""Assemble the report: its content. `page.html` and `page.css` decide its appearance."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.figure_list import FIGURES
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from analysis.report.configurations import LEFT_OUT, LONGEST, Flat, Group, group
from analysis.report.drawings import Kind, drawings
from analysis.report.origins import Fact, origins
from analysis.stats.scores import Difference
from analysis.stats.significance import PAIRS_NEEDED
from analysis.tables.ablation import table
from analysis.tables.comparison import Comparison, compare, p_value
from analysis.tables.html import STYLE, html_table, templates
from analysis.tables.model import Table
from analysis.tables.rounding import MINUS
from mmkd import __version__
from mmkd.errors import UserError
from mmkd.formatting import teacher_label
from mmkd.records import StudyRecord, read_study, study_names
from mmkd.rundir import RowDir

_HERE = Path(__file__).parent
_TUNING = ("selection", "sampler", "pruner", "asked", "winner_trial", "winner_value")
"""The description of a row's search, beside its space."""


@dataclass(frozen=True)
class Against:
    """A row beside the control; or `reason`, why it cannot be compared."""

    title: str
    found: Comparison | None
    reason: str = ""


@dataclass(frozen=True)
class StudyPart:
    """A study in the report; `control` is the title of its control, `costs` the table of `--efficiency`."""

    name: str
    title: str
    table: Markup
    control: str | None
    compared: tuple[Against, ...]
    kinds: tuple[Kind, ...]
    costs: Markup | None
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Listed:
    """A row, or the teachers that differ in their seeds alone, with every trial; `journal` is quoted for a shell."""

    anchor: str
    title: str
    tuning: Flat
    journal: str
    group: Group


@dataclass(frozen=True)
class Page:
    """All that the report says."""

    title: str
    studies: tuple[StudyPart, ...]
    rows: tuple[Listed, ...]
    teachers: tuple[Listed, ...]
    rejected: tuple[tuple[str, str], ...]


def report(
    runs: Runs,
    studies: Sequence[str] | None = None,
    *,
    kinds: Sequence[str] = tuple(FIGURES),
    costs: Callable[[str], Table] | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> str:
    """The report as HTML; equal runs give equal text, but for `costs`.

    Args:
        runs: what `analysis.load` gave.
        studies: their names, in the order wanted; None is all of them, and all that lies beside them under the root.
        kinds: which figures, of `analysis.figure_list.FIGURES`.
        costs: measures a study's networks, where that is wanted; see `analysis.networks.inference_table`.
        tell: is told what is being done, for it may take minutes.

    Raises:
        UserError: there is no study, or not the one that is named, or its file is broken.
    """
    specs, broken = _read_studies(runs, studies)
    tell("reading configurations")
    mine = None if studies is None else [row.directory for spec in specs for row in spec.rows]
    rows, teachers = _rows(runs, specs, mine), _teachers(runs, mine)
    parts = tuple(_study(runs, spec, f"s{number}", kinds, costs, tell) for number, spec in enumerate(specs, start=1))
    rejected = (
        *broken,
        *((path, reason.removeprefix(f"{path}: ")) for path, reason in runs.rejected.itertuples(index=False)),
    )
    title = parts[0].title if len(parts) == 1 else f"{len(parts)} studies"
    return render(Page(title, parts, rows, teachers, rejected))


def _read_studies(runs: Runs, names: Sequence[str] | None) -> tuple[list[StudyRecord], list[tuple[str, str]]]:
    """The studies, and of those that nobody has named the ones that cannot be read, with the reason."""
    if names is not None:
        return [read_study(runs.root, name) for name in dict.fromkeys(names)], []
    found, broken = [], []
    for name in study_names(runs.root):
        try:
            found.append(read_study(runs.root, name))
        except UserError as error:
            broken.append((f"studies/{name}.json", str(error).replace(f"{runs.root}/", "")))
    if not found:
        raise UserError(f"{runs.root}/studies: no study here" + "".join(f"; {reason}" for _, reason in broken))
    return found, broken


def _study(
    runs: Runs,
    spec: StudyRecord,
    prefix: str,
    kinds: Sequence[str],
    costs: Callable[[str], Table] | None,
    tell: Callable[[str], object],
) -> StudyPart:
    tell(f"{spec.name}: table and comparisons")
    rows = collect(runs, spec)
    control = next((row for row in rows if row.spec.name == spec.control), None)
    compared = () if control is None else tuple(_compared(runs, spec, rows, control))
    shown = []
    for kind in kinds:
        tell(f"{spec.name}: figures: {kind}")
        shown.append(drawings(runs, spec.name, kind, prefix))
    ran = pd.concat([part for row in rows for part in (row.tuning, row.final_runs, row.superseded, row.teachers)])
    ran = ran.dropna(subset=["directory"]).drop_duplicates("directory")
    return StudyPart(
        spec.name,
        spec.title,
        html_table(table(runs, spec.name)),
        None if control is None else control.title,
        compared,
        tuple(kind for kind in shown if kind.drawings),
        None if costs is None else html_table(costs(spec.name)),
        origins(runs, ran),
    )


def _compared(runs: Runs, spec: StudyRecord, rows: Sequence[RowRuns], control: RowRuns) -> Iterator[Against]:
    for row in rows:
        if row is control:
            continue
        try:
            yield Against(row.title, compare(runs, spec.name, row.spec.name, control.spec.name))
        except UserError as error:
            yield Against(row.title, None, str(error).replace(f"{runs.root}/", ""))


def _rows(runs: Runs, specs: Sequence[StudyRecord], mine: Sequence[str] | None) -> tuple[Listed, ...]:
    """The rows in the studies' order, then, unless `mine` are wanted alone, all others."""
    labels = {row.directory: f"{row.label} [{row.group}]" if row.group else row.label for s in specs for row in s.rows}
    lines = dict(list(runs.trials.groupby("row")))
    others = [] if mine is not None else sorted({*map(str, lines), *map(str, runs.rows["row"])} - set(labels))
    tuned = {str(line["row"]): line for line in runs.rows.to_dict("records")}
    return tuple(
        Listed(
            f"row-{number}",
            labels.get(name, f"{name} (in no study)"),
            _search(tuned.get(name, {})),
            _journal(runs, name),
            group(runs, f"rows/{name}", lines.get(name, runs.trials.iloc[:0])),
        )
        for number, name in enumerate([*labels, *others], start=1)
        if name in lines or name in tuned
    )


def _search(line: Mapping[Any, Any]) -> Flat:
    """How the row was tuned, from its line: the hyper-parameters' ranges, then the rest."""
    known = {key: value for key, value in line.items() if not pd.isna(value)}
    spaces = [key.removesuffix(".low") for key in known if key.startswith("space.") and key.endswith(".low")]
    ranges = {
        key: f"{known[f'{key}.low']} to {known.get(f'{key}.high')}" + (", log" if known.get(f"{key}.log") else "")
        for key in spaces
    }
    others = {key: known[key] for key in _TUNING if key in known}
    return ranges | {key: f"{x:.6g}" if isinstance(x, float) else str(x) for key, x in others.items()}


def _journal(runs: Runs, row: str) -> str:
    there = RowDir(runs.root / "rows" / row).journal.exists()
    return shlex.quote(RowDir(Path("rows") / row).journal.as_posix()) if there else ""


def _teachers(runs: Runs, mine: Sequence[str] | None) -> tuple[Listed, ...]:
    """The teachers that runs of these rows name; all where `mine` is None."""
    trials = runs.trials
    teachers = trials[trials["kind"] == "teacher"]
    if mine is not None:
        teachers = teachers[teachers["directory"].isin(trials.loc[trials["row"].isin(mine), "teacher"])]
    families = teachers.groupby("teacher_family", sort=False, dropna=False)
    return tuple(
        Listed(f"teacher-{number}", _teacher_title(lines), {}, "", group(runs, "teachers", lines))
        for number, (_, lines) in enumerate(families, start=1)
    )


def _teacher_title(lines: pd.DataFrame) -> str:
    branch, family = lines["branch"].iloc[0], lines["teacher_family"].iloc[0]
    if pd.isna(family):
        return "Teacher without config.json"
    use = "final runs" if lines["test_accuracy"].notna().any() else "tuning"
    return f"{teacher_label(branch, 'Teacher')}, of {use}"


def render(page: Page) -> str:
    """The page as HTML; all text is escaped."""
    environment = templates(_HERE)
    environment.filters |= {"difference": _difference, "p_value": p_value, "percent": _percent, "digits": _digits}
    style = Markup(STYLE + (_HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(
        page=page, style=style, version=__version__, left_out=LEFT_OUT, longest=LONGEST, pairs_needed=PAIRS_NEEDED
    )


def _difference(found: Difference) -> str:
    """In points, with its interval and p where there are seeds enough."""
    if found.low is None or found.high is None or found.p is None:
        return f"{found.value:+z.2f} (too few seeds)".replace("-", MINUS)
    return f"{found.value:+z.2f} [{found.low:+z.2f}, {found.high:+z.2f}], {p_value(found.p)}".replace("-", MINUS)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
