"""The verdict of a table: which rows differ from their control, and what difference the study could have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.power import MinimumDetectable, detectable_over_replicates, detectable_over_seeds
from analysis.stats.replicates import compared_scores, tests_to_control
from analysis.stats.scores import Difference, Score, comparable, difference_of, percents
from analysis.stats.uncertainty import ALPHA
from analysis.tables.rounding import MINUS
from mmkd.formatting import count, significant

NAMED = 3
"""So many rows that differ are named."""


def verdict(runs: Runs, rows: Sequence[RowRuns], control: RowRuns | None, scores: Mapping[str, Score]) -> str:
    """One or two sentences about the accuracies `scores`, by name of the row."""
    if not any(row.control for row in rows):
        return "No verdict: the study names no control."
    unfinished = sum(bool(row.status) for row in rows)
    rest = f" {unfinished} of {count(len(rows), 'row')} without a final score." if unfinished else ""
    differences = [(row.title, scores[row.spec.name].difference) for row in rows]
    tested = [(title, found) for title, found in differences if found is not None and found.corrected is not None]
    if not tested:
        unit = "replicates" if any(row.is_replicated for row in rows) else "seeds"
        why = f"fewer than two {unit}, or the same difference in all"
        return f"No verdict: no row can be tested against its control ({why}).{rest}"
    minimum = minimum_detectable(runs, comparable(rows, control))
    power = f"; the study could have detected {significant(minimum.difference)} points" if minimum else ""
    return f"{_differing(tested)}{power}.{rest}"


def _differing(tested: Sequence[tuple[str, Difference]]) -> str:
    differ = sorted(((t, d) for t, d in tested if (d.corrected or 0.0) < ALPHA), key=lambda one: -abs(one[1].value))
    if not differ:
        return f"No row differs significantly from its control ({len(tested)} compared, Holm, 5 %)"
    named = ", ".join(f"{title} {found.value:+.1f}".replace("-", MINUS) for title, found in differ[:NAMED])
    more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
    which = f"{len(differ)} of {count(len(tested), 'compared row')} {'differs' if len(differ) == 1 else 'differ'}"
    return f"{which} from the control (Holm, 5 %), in points of accuracy: {named}{more}"


def minimum_detectable(runs: Runs, members: Sequence[RowRuns]) -> MinimumDetectable | None:
    """The minimum detectable difference of accuracy, of the test and at the level that the table uses.

    None where no row has two seeds, or two replicates in common with its control.
    """
    controls = {row.spec.name: row.control for row in members}
    if any(row.is_replicated for row in members):
        scores = compared_scores(runs, {row.spec.name: row for row in members}, "accuracy")
        tests = [test for test in tests_to_control(scores, controls).values() if test.error > 0]
        if not tests:
            return None
        replicates, freedom = min(len(test.differences) for test in tests), min(test.freedom for test in tests)
        return detectable_over_replicates([test.error for test in tests], freedom, replicates, len(tests))
    values = {row.spec.name: percents(row.measured, "test_accuracy") for row in members}
    pairs = [(values[name], values[other]) for name, other in controls.items() if other in values]
    compared = sum(difference_of(*pair).p is not None for pair in pairs)
    return detectable_over_seeds([(len(v), float(v.std(ddof=1))) for v in values.values() if len(v) > 1], compared)
