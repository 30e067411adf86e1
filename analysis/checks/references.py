"""Check that teachers and students beat an untuned linear model of the same modalities, and the most frequent class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.checks.finding import Finding, first_few
from analysis.loading.replicate_runs import scored
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns, teacher_families
from analysis.stats.references import references, student_modalities, teacher_modalities

Measured = tuple[str, float]
"""A row's or teacher's title, and its mean accuracy in per cent."""


def below_references(runs: Runs, rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """One finding for each set of modalities whose reference some teachers or students do not beat on test."""
    measured: dict[tuple[str, ...], list[Measured]] = {}
    for row in rows:
        values = row.means("test_accuracy")
        if values:
            measured.setdefault(student_modalities(row), []).append((row.title, 100 * sum(values) / len(values)))
    for label, family in teacher_families(rows):
        done = scored(family)
        if len(done):
            taught = next(row for row in rows if set(row.teachers.index) & set(done.index))
            mean = float(100 * done.groupby("replicate")["test_accuracy"].mean().mean())
            measured.setdefault(teacher_modalities(taught), []).append((label, mean))
    for modalities, scores in measured.items():
        known = references(runs, rows, modalities)
        if not known:
            continue
        linear, majority = (
            100 * sum(scores_of["accuracy"] for scores_of in found) / len(known)
            for found in ([one.test for one in known], [one.majority for one in known])
        )
        best, name = max((linear, "an untuned linear model"), (majority, "the most frequent class"))
        below = [f"{title} ({accuracy:.1f} %)" for title, accuracy in scores if accuracy <= best]
        if below:
            yield Finding(
                "references",
                f"not better than {name} of the same modalities ({' + '.join(modalities)}: {best:.1f} %): "
                f"{first_few(below)}",
            )
