"""Check that networks were trained to the end: the best epoch is not the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.checks.finding import Finding, first_few
from analysis.loading.replicate_runs import scored
from analysis.loading.study_rows import RowRuns, teacher_families

TOO_MANY = 0.5
"""Share of a row's runs from which on its training counts as too short."""


def too_short(rows: Sequence[RowRuns]) -> Iterator[Finding]:
    """One finding that names the rows and teachers whose validation loss was still falling when training ended."""
    named = [*((row.title, row.measured) for row in rows), *((name, scored(of)) for name, of in teacher_families(rows))]
    short = []
    for title, runs in named:
        last = int((runs["best_epoch"] == runs["epochs"]).sum())
        if last and last >= TOO_MANY * len(runs):
            short.append(f"{title} ({last} of {len(runs)})")
    if short:
        yield Finding(
            "training",
            f"not trained to the end: the best epoch is the last one in half of the runs or more: {first_few(short)}; "
            "give them more epochs",
        )
