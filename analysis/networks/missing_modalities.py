"""Missing modalities: scores of the teacher with one blank, beside the students that never had it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from analysis.loading.replicate_runs import scored
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, collect, teacher_families
from analysis.stats.scores import mean_of, mean_score, percents
from analysis.tables.model import Cell, Column, Section, Table, TableRow
from analysis.tables.rounding import with_text
from mmkd.data.tensors import load_samples
from mmkd.distillation.frozen_teacher import blank
from mmkd.errors import UserError
from mmkd.training.evaluation import evaluate
from mmkd.training.lesson import default_device
from mmkd.training.trained_network import load_network

SHOWN = {"accuracy": "accuracy %", "weighted_f1": "weighted F1 %", "macro_f1": "macro F1 %"}
COLUMNS = (
    *(Column(metric, label, "spread", "higher") for metric, label in SHOWN.items()),
    Column("majority_share", "maj. %", "mean"),
    Column("seeds", "n", "ratio"),
)


def views(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Label -> the modalities that a network is given, all others blank: all, all but one, one alone; each set once."""
    found = {"all modalities": tuple(modalities)}
    found |= {f"without {m}": tuple(other for other in modalities if other != m) for m in modalities}
    found |= {f"{m} alone": (m,) for m in modalities}
    sets = list(found.values())
    return {label: kept for number, (label, kept) in enumerate(found.items()) if kept and kept not in sets[:number]}


def measure_views(runs: Runs, directories: Collection[str]) -> pd.DataFrame:
    """Metrics on test of the networks of finished trials, one line per directory and view, blank as `blank` does it.

    Columns: directory, view, kept (modalities joined by commas), samples, and `mmkd.metrics`' as fractions.

    Raises:
        UserError: a directory holds no finished trial; its weights or its data are gone or have changed.
    """
    device = default_device()
    lines = []
    for directory in directories:
        trained = load_network(runs.root / directory, device)
        test = load_samples(trained.info, "test", trained.inputs, device)
        for view, kept in views(trained.inputs).items():
            seen = replace(test, x=blank(test.x, kept))
            metrics, _ = evaluate(trained.network, seen, trained.info)
            facts = {"directory": directory, "view": view, "kept": ",".join(kept), "samples": len(test)}
            lines.append(facts | metrics)
    return pd.DataFrame(lines)


def missing(runs: Runs, study: str, tell: Callable[[str], object] = lambda what: None) -> Table:
    """A study's teachers, and its students that see several modalities, with each of these blank; and all students.

    `tell` is given what is measured next.

    Raises:
        UserError: no such study; it has no teacher with a score yet; or see `measure_views`.
    """
    found = collect(runs, study)
    if all(row.measured_teachers.empty for row in found.rows):
        raise UserError(f"study {study}: no teacher has a score on test yet")
    sections, sizes = [], []
    for label, family in teacher_families(found.rows):
        tell(label)
        measured = measure_views(runs, [str(directory) for directory in scored(family).index])
        sizes += list(measured["samples"])
        sections.append(Section(label, tuple(_view_rows(measured, "teacher", label, len(family)))))
    for row in found.rows:
        if row.fact("pairing") == "multimodal" and len(row.measured):
            tell(row.title)
            measured = measure_views(runs, list(row.measured["directory"]))
            sections.append(
                Section(row.title, tuple(_view_rows(measured, "student", row.spec.name, len(row.final_runs))))
            )
    sections.append(Section("Students, as trained", tuple(_student_row(row) for row in found.rows)))
    samples = min(sizes, default=0)
    shown = tuple(with_text(sections, COLUMNS, samples))
    title = f"Missing modalities: {found.record.title}"
    return Table(study, title, COLUMNS, shown, notes=tuple(_notes(found.rows, samples)))


def _view_rows(measured: pd.DataFrame, kind: str, name: str, wanted: int) -> Iterator[TableRow]:
    for view, lines in measured.groupby("view", sort=False):
        scores = {metric: mean_of(percents(lines, metric), wanted, "sd") for metric in (*SHOWN, "majority_share")}
        cells = {metric: Cell.of(score) for metric, score in scores.items()}
        cells["seeds"] = Cell(float(len(lines)), n=len(lines), wanted=wanted)
        yield TableRow(f"{name}: {view}", str(view), "teacher" if kind == "teacher" else "student", "", cells)


def _student_row(row: RowRuns) -> TableRow:
    done, wanted = len(row.measured), len(row.final_runs)
    cells = {
        metric: Cell.of(mean_score(row.final_runs, f"test_{metric}", "sd")) for metric in (*SHOWN, "majority_share")
    }
    cells["seeds"] = Cell(float(done), n=done, wanted=wanted)
    return TableRow(row.spec.name, row.title, "student", row.status, cells)


def _notes(rows: Sequence[RowRuns], samples: int) -> Iterator[str]:
    yield (
        "a modality that is missing is blank: all of its standardised features are zero, which is their mean over "
        "train; the network computes as ever, and was never trained for it"
    )
    yield f"mean ± sample standard deviation (n - 1) over n final runs, test split of {samples} samples"
    unimodal = [row for row in rows if row.row is not None and row.fact("pairing") != "multimodal"]
    if unimodal:
        several = any(row.fact("pairing") == "multimodal" for row in rows)
        yield f"students see {' or '.join(dict.fromkeys(row.fact('primary') for row in unimodal))} alone" + (
            ", but for those with several modalities" if several else ""
        )
    yield "nothing was selected by these figures: they are of the runs that the study's table shows"
