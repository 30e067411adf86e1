"""The columns of a table that compare a row with its control, and with the study's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from analysis.stats.over_samples import difference_over_samples
from analysis.stats.replicates import has_several_test_parts
from analysis.stats.scores import Score
from analysis.tables.model import Cell, Column
from mmkd.errors import UserError

DIFFERENCES = (
    Column(
        "difference", "Δ\N{NO-BREAK SPACE}accuracy [95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI]", "difference", "higher"
    ),
    Column("over_samples", "over samples [95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}CI]", "interval"),
    Column("to_control", "Δ to the study's control", "difference", "higher"),
    Column("effect", "effect size", "effect", "higher"),
    Column("p", "p (Holm)", "p"),
    Column("equivalence", "p within ±margin", "p"),
)


def with_intervals_over_samples(
    runs: Runs, controls: Mapping[str, RowRuns | None], rows: Sequence[RowRuns], scores: Mapping[str, Score]
) -> dict[str, Score]:
    """The scores of accuracy, with differences over other test samples too, if all replicates have one test part."""
    found = dict(scores)
    if not any(row.is_replicated for row in rows) or has_several_test_parts(runs, rows):
        return found
    for row in rows:
        score, control = found[row.spec.name], controls[row.spec.name]
        if score.difference is not None and control is not None:
            found[row.spec.name] = replace(score, over_samples=difference_over_samples(runs, row, control))
    return found


def difference_cells(score: Score) -> dict[str, Cell]:
    """The cells of `DIFFERENCES` that a row has, from its accuracy."""
    cells: dict[str, Cell] = {}
    if (own := score.difference) is not None:
        cells["difference"] = Cell(own.value, difference=own)
        cells["effect"], cells["p"], cells["equivalence"] = Cell(own.effect), Cell(own.corrected), Cell(own.equivalence)
    if (common := score.to_study_control) is not None:
        cells["to_control"] = Cell(common.value, difference=common)
    over = score.over_samples
    if over is not None and over.low is not None and over.high is not None:
        cells["over_samples"] = Cell(over.value, interval=(over.low, over.high))
    return cells


def unshown_differences(
    rows: Sequence[RowRuns], control: RowRuns | None, scores: Collection[Score], margin: float | None
) -> set[str]:
    """Keys of `DIFFERENCES` that say nothing in this table."""
    hidden = set()
    if all(row.control is None for row in rows):
        hidden |= {"difference", "effect", "p", "equivalence"}
    if control is None or all(row.control == control.spec.name for row in rows if row is not control):
        hidden.add("to_control")
    if not any(row.is_replicated for row in rows):
        hidden.add("effect")
    if margin is None:
        hidden.add("equivalence")
    if all(score.over_samples is None for score in scores):
        hidden.add("over_samples")
    return hidden


def check_margin(margin: float | None, columns: Sequence[str] | None) -> None:
    """Check what was asked for.

    Raises:
        UserError: the margin is not above 0, or the column that needs one is wanted without.
    """
    if margin is not None and not 0 < margin < 100:
        raise UserError(f"--margin {margin:g}: give points of accuracy, above 0 and below 100")
    if margin is None and "equivalence" in (columns or ()):
        raise UserError("--columns equivalence: give --margin too, the difference in points that does not matter")


def difference_notes(
    rows: Sequence[RowRuns], control: RowRuns | None, scores: Collection[Score], margin: float | None, groups: int
) -> Iterator[str]:
    """Notes on these columns.

    Args:
        rows: the table's.
        control: the study's.
        scores: of accuracy, of all rows.
        margin: of the tests of equivalence, in points.
        groups: groups of test samples; 0 if the data have none.
    """
    titles = {row.spec.name: row.title for row in rows}
    common = None if control is None else control.spec.name
    if control is not None:
        yield f"control: “{control.title}”"
    own = {row.spec.name: row.control for row in rows if row.control and row.control != common}
    for name in dict.fromkeys(own.values()):
        compared = ", ".join(row for row, other in own.items() if other == name)
        yield f"control of {compared}: “{titles.get(name, name)}”, the same student without KD"
    if own and control is not None:
        yield (
            f"Δ to the study's control: the same difference to “{control.title}”, with the 95 % interval of one "
            "comparison, not corrected; it mixes the method's effect with that of another student"
        )
    if any(score.over_samples is not None for score in scores):
        unit = f"t over their {groups} groups" if groups else "t over samples, taken as independent"
        yield (
            "over samples: the 95 % interval of Δ for these very runs on other test samples "
            f"({unit}); the interval of Δ is for other replicates on these samples"
        )
    tested = [score.difference for score in scores if score.difference and score.difference.equivalence is not None]
    if margin is not None and tested:
        yield (
            f"p within ±{margin:g}: two one-sided t tests that the true difference is below {margin:g} points either "
            f"way, corrected by Holm for {len(tested)}; at p < .05 the row equals its control within that margin"
        )
