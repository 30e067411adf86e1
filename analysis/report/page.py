"""Assemble the report: its content. `page.html` and `page.css` decide its appearance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from analysis.figure_list import FIGURES, IN_REPORT
from analysis.loading.configurations import LEFT_OUT
from analysis.loading.replicate_runs import seed_name
from analysis.loading.runs import Runs
from analysis.loading.study_rows import StudyRuns, collect
from analysis.report.configurations import LONGEST, list_rows, list_teachers
from analysis.report.drawings import Drawing, drawings
from analysis.report.origins import origins
from analysis.stats.scores import Difference
from analysis.stats.significance import PAIRS_NEEDED
from analysis.tables.ablation import table
from analysis.tables.comparison import Comparison, compare, difference_text, p_value
from analysis.tables.html import STYLE, html_table, templates
from analysis.tables.model import Table
from analysis.tables.rounding import MINUS
from mmkd import __version__
from mmkd.errors import UserError
from mmkd.formatting import percent
from mmkd.records import StudyRecord, read_study, study_names

_HERE = Path(__file__).parent
FOREST = "forest"
"""The figure that the report opens with."""


@dataclass(frozen=True)
class Against:
    """A row beside the control; or `reason`, why it cannot be compared."""

    title: str
    found: Comparison | None
    reason: str = ""


@dataclass(frozen=True)
class StudyPart:
    """A study in the report: its control in words, drawings by kind, the table of `--efficiency`, provenance."""

    name: str
    title: str
    verdict: str
    table: Markup
    control: str | None
    compared: tuple[Against, ...]
    forest: tuple[Drawing, ...]
    drawings: dict[str, tuple[Drawing, ...]]
    costs: Markup | None
    facts: dict[str, str]


def report(
    runs: Runs,
    studies: Sequence[str] | None = None,
    *,
    kinds: Sequence[str] = IN_REPORT,
    costs: Callable[[str], Table] | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> str:
    """The report as HTML; equal runs give equal text, but for `costs`.

    Args:
        runs: what `analysis.load` gave.
        studies: their names, in the order wanted; None is all of them, and everything else under the root.
        kinds: which figures, of `analysis.figure_list.FIGURES`.
        costs: measures a study's networks, where that is wanted; see `analysis.networks.inference_table`.
        tell: is called with the current step, because the report may take minutes.

    Raises:
        UserError: there is no study, or not the one that is named, or its file is broken.
    """
    specs, broken = _read_studies(runs, studies)
    tell("reading configurations")
    mine = None if studies is None else [row.directory for spec in specs for row in spec.rows]
    rows, teachers = list_rows(runs, specs, mine), list_teachers(runs, mine)
    parts = tuple(_study(runs, spec, f"s{number}", kinds, costs, tell) for number, spec in enumerate(specs, start=1))
    rejected = (
        *broken,
        *((path, reason.removeprefix(f"{path}: ")) for path, reason in runs.rejected.itertuples(index=False)),
    )
    environment = templates(_HERE)
    environment.filters |= {
        "difference": _difference,
        "p_value": p_value,
        "seed_name": seed_name,
        "percent": percent,
        "digits": _digits,
    }
    return environment.get_template("page.html").render(
        title=parts[0].title if len(parts) == 1 else f"{len(parts)} studies",
        studies=parts,
        rows=rows,
        teachers=teachers,
        rejected=rejected,
        figures=FIGURES,
        style=Markup(STYLE + (_HERE / "page.css").read_text(encoding="utf-8")),
        version=__version__,
        left_out=LEFT_OUT,
        longest=LONGEST,
        pairs_needed=PAIRS_NEEDED,
    )


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
    found = collect(runs, spec.name)
    control, several = found.control, len({row.control for row in found.rows} - {None}) > 1
    shown = {}
    for kind in kinds:
        tell(f"{spec.name}: figures: {kind}")
        shown[kind] = tuple(drawings(runs, spec.name, kind, prefix))
    ran = pd.concat([part for row in found.rows for part in (row.trials, row.superseded)])
    ran = ran.dropna(subset=["directory"]).drop_duplicates("directory")
    made = table(runs, spec.name, tell=tell)
    return StudyPart(
        spec.name,
        spec.title,
        made.verdict,
        html_table(made, verdict=False),
        None if control is None else "the row's control" if several else control.title,
        () if control is None else tuple(_compared(runs, found)),
        shown.pop(FOREST, ()),
        {kind: drawn for kind, drawn in shown.items() if drawn},
        None if costs is None else html_table(costs(spec.name)),
        origins(runs, ran),
    )


def _compared(runs: Runs, found: StudyRuns) -> Iterator[Against]:
    for row in found.rows:
        if row.control is None:
            continue
        try:
            yield Against(row.title, compare(runs, found.record.name, row.spec.name, row.control))
        except UserError as error:
            yield Against(row.title, None, str(error).replace(f"{runs.root}/", ""))


def _difference(found: Difference) -> str:
    return difference_text(found).replace("-", MINUS)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
