"""One table over several data sets: the rows of several studies, by name, with each difference and the mean ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect
from analysis.stats.error_bars import ERRORS, Error
from analysis.stats.ranks import FEWEST, Ranking, rank_rows
from analysis.stats.uncertainty import ALPHA
from analysis.tables.ablation import table
from analysis.tables.model import Cell, Column, Section, Table, TableRow
from mmkd.errors import UserError, choose
from mmkd.formatting import count
from mmkd.records import study_names

SAME = ("method", "level", "pairing")
"""Facts that make rows of one name the same row on other data."""
UNIVERSAL = ("others", "complete", "multimodal")
"""Pairings that are called the same on all data."""


def across(runs: Runs, studies: Sequence[str], *, error: Error = "sd", rows: Sequence[str] | None = None) -> Table:
    """The table of several studies of the same rows on different data, all under the root of `runs`.

    Rows are matched by name. Ranks are those of mean accuracy among the rows that all studies have finished.

    Args:
        runs: all runs.
        studies: two names or more.
        error: see `analysis.table`.
        rows: names of the rows to show beside their controls; by default all.

    Raises:
        UserError: there is no such study, they are fewer than two, or they have no row in common.
    """
    names = [choose("study (--across)", name, study_names(runs.root)) for name in studies]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"--across {' '.join(names)}: name two studies or more, each once")
    made = {name: table(runs, name, error=error, rows=rows) for name in names}
    found = {name: {row.spec.name: row for row in collect(runs, name, rows).rows} for name in names}
    students = {name: {row.name: row for row in one.rows if row.kind == "student"} for name, one in made.items()}
    common = [row for row in students[names[0]] if all(row in of for of in students.values())]
    if not common:
        raise UserError(f"--across {' '.join(names)}: these studies have no row in common")
    ranked = [row for row in common if all(of[row].cells["accuracy"].value is not None for of in students.values())]
    ranking = _rank(students, ranked)
    short = _short(names)
    labels = _labels([students[names[0]][row] for row in common])
    lines = [
        TableRow(
            row,
            label,
            "student",
            "",
            {**_scores(students, row), **_rank_cells(ranking, ranked, row)},
            students[names[0]][row].control,
        )
        for row, label in zip(common, labels, strict=True)
    ]
    return Table(
        "-".join(names),
        f"{made[names[0]].title} ({count(len(names), 'data set')})",
        (*_columns(names, short), *_rank_columns(ranking)),
        (Section(None, tuple(lines)),),
        warnings=(*_unlike(found, common), *(f"{name}: {said}" for name in names for said in made[name].warnings)),
        legend="{best} is the best and {second} the second of each data set's students (within its own table)",
        notes=tuple(_notes(made, found, ranking, ranked, error)),
        provenance={"studies": {name: one.provenance for name, one in made.items()}},
        subtitle=next((one.subtitle for one in made.values() if one.subtitle), ""),
    )


def _short(names: Sequence[str]) -> dict[str, str]:
    """Names without the words that all of them begin with."""
    words = [name.split("-") for name in names]
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False)))
    return {name: "-".join(name.split("-")[shared:]) or name for name in names}


def _columns(names: Sequence[str], short: Mapping[str, str]) -> Iterator[Column]:
    for name in names:
        yield Column(f"{name}:accuracy", f"{short[name]} accuracy\N{NO-BREAK SPACE}%", "spread", "higher")
        yield Column(
            f"{name}:difference",
            f"{short[name]} Δ\N{NO-BREAK SPACE}[95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI]",
            "difference",
            "higher",
        )


def _rank_columns(ranking: Ranking) -> Iterator[Column]:
    yield Column("mean_rank", "mean rank", "rank", "lower")
    if ranking.against:
        yield Column("p_rank", "p (ranks, Holm)", "p")


def _scores(students: Mapping[str, Mapping[str, TableRow]], row: str) -> dict[str, Cell]:
    """A row's cells of accuracy and difference, as they are in the studies' own tables."""
    return {f"{name}:{key}": of[row].cells[key] for name, of in students.items() for key in ("accuracy", "difference")}


def _labels(rows: Sequence[TableRow]) -> list[str]:
    """Labels of rows, with their names where several have one label: groups are named after a data set's modalities."""
    seen = Counter(row.label for row in rows)
    return [row.label if seen[row.label] == 1 else f"{row.label} ({row.name})" for row in rows]


def _rank(students: Mapping[str, Mapping[str, TableRow]], ranked: Sequence[str]) -> Ranking:
    first = next(iter(students.values()))
    controls = {
        place: ranked.index(control)
        for place, row in enumerate(ranked)
        if (control := first[row].control) is not None and control in ranked
    }
    return rank_rows([[of[row].cells["accuracy"].value or 0.0 for row in ranked] for of in students.values()], controls)


def _rank_cells(ranking: Ranking, ranked: Sequence[str], row: str) -> dict[str, Cell]:
    if row not in ranked:
        return {"mean_rank": Cell(), "p_rank": Cell()}
    place = ranked.index(row)
    mean, p = float(ranking.means[place]), ranking.against.get(place)
    shown = "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return {"mean_rank": Cell(mean, text=f"{mean:.1f}"), "p_rank": Cell(p, text=shown)}


def _unlike(found: Mapping[str, Mapping[str, RowRuns]], common: Sequence[str]) -> Iterator[str]:
    """Rows that are not the same on all data sets, and data sets that are the same."""
    for row in common:
        for column in SAME:
            values = {name: of[row].fact(column) for name, of in found.items() if of[row].row is not None}
            if column == "pairing":  # a modality has another name in other data
                values = {
                    name: value for name, value in values.items() if value in ("others", "complete", "multimodal")
                }
            if len(set(values.values())) > 1:
                listed = ", ".join(f"{name}: {value or 'none'}" for name, value in values.items())
                yield f"row {row}: {column}s are unequal: {listed}"
    data: dict[str, list[str]] = {}
    for name, of in found.items():
        for fingerprint in {row.fact("fingerprint") for row in of.values()} - {""}:
            data.setdefault(fingerprint, []).append(name)
    for names in data.values():
        if len(names) > 1:
            yield f"{' and '.join(names)} are on the same data: they are not independent data sets"


def _notes(
    made: Mapping[str, Table],
    found: Mapping[str, Mapping[str, RowRuns]],
    ranking: Ranking,
    ranked: Sequence[str],
    error: Error,
) -> Iterator[str]:
    for name in made:
        sources = dict.fromkeys(source for row in found[name].values() if (source := row.fact("source")))
        yield f"{name}: {'; '.join(sources) or 'nothing has run'}"
    yield (
        f"scores: test accuracy, mean ± {ERRORS[error]}; Δ: minus the row's control on the same data, in points, with "
        "the 95 % interval of this comparison alone; tests and notes of a data set: mmkd table --study NAME"
    )
    sets = len(made)
    yield f"mean rank: of mean accuracy among the {len(ranked)} rows that all {sets} data sets have; 1 is the best"
    if sets < FEWEST:
        yield (
            f"ranks are not tested: {sets} data sets, and with fewer than {FEWEST} even a row that beats another on "
            "each has p > .05; read the differences"
        )
        return
    verdict = "rows differ" if ranking.p < ALPHA else "no row can be told from another by its ranks"
    yield (
        f"Friedman's test (Iman and Davenport's F) over {sets} data sets and {len(ranked)} rows: p = {ranking.p:.3f}: "
        f"{verdict}; p (ranks, Holm): each row's mean rank against its control's (Demšar 2006), which counts only if "
        "Friedman's test does"
    )
