"""Forecast what a study could detect, and how many replicates, seeds and hours a wanted difference takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.loading.runs import Runs, load
from analysis.loading.study_rows import RowRuns, StudyRuns, collect_record
from analysis.loading.study_trials import first_lines
from analysis.stats.design import ReplicateSpread, SeedSpread, spread_of_replicates
from analysis.stats.paired import Replicated
from analysis.stats.replicates import compared_scores, tests_to_control
from analysis.stats.scores import percents
from analysis.stats.uncertainty import ALPHA
from analysis.tables.training_cost import Clock, choose_clock, spent
from mmkd.formatting import columns, count, significant
from mmkd.records import SplitRecord, StudyRecord, find_record
from mmkd.rundir import Root

UNKNOWN = "no row and its control have two finished replicates or seeds that differ: the spread is not known"
SEEDS = (1, 2, 3, 5)
"""Numbers of seeds that are offered where the spread between seeds is known."""


@dataclass(frozen=True)
class Cost:
    """Cost of finished runs in the clock's seconds: of one replicate of a row's tuning, of one final run, and of all
    teachers of a replicate with `seeds` final runs."""

    clock: Clock
    tuning: float
    final: float
    teachers: float
    seeds: int

    def total(self, rows: int, replicates: int, seeds: int) -> float:
        """Cost of a study, in the clock's units."""
        one = rows * (self.tuning + seeds * self.final) + self.teachers * (1 + seeds) / (1 + self.seeds)
        return replicates * one / self.clock.seconds


@dataclass(frozen=True)
class Option:
    """A size of the study: what it detects with power .8, its power for the effect asked about, and its cost."""

    replicates: int
    seeds: int
    detectable: float
    power: float
    cost: float


@dataclass(frozen=True)
class Forecast:
    """The differences that a study could detect.

    Attributes:
        spread: of finished runs, over replicates, or over seeds in a study without replicates.
        comparisons: rows that are compared with a control; the level is 5 % divided by them (Holm's first step).
        effect: true difference asked about, in points.
        unit: of the costs.
        sizes: the study as it is, and larger.
        needed: the smallest sizes that detect the effect, for some numbers of seeds; none if the test groups bound it.
        bound: what no number of replicates would get below, in points; 0 if there is no such bound.
    """

    study: str
    spread: ReplicateSpread | SeedSpread
    comparisons: int
    effect: float
    unit: str
    sizes: tuple[Option, ...]
    needed: tuple[Option, ...]
    bound: float

    @property
    def level(self) -> float:
        """Level of a single test."""
        return ALPHA / self.comparisons


def forecast(runs: Runs, found: StudyRuns, effect: float = 2.0, rows: int | None = None) -> Forecast | None:
    """Forecast from the finished runs of a study; None if they show no spread.

    Args:
        runs: all runs.
        found: the study.
        effect: see `Forecast`.
        rows: rows of the table, one of them the control; by default the study's.
    """
    spread = study_spread(runs, found)
    if spread is None:
        return None
    compared = sum(row.control is not None for row in found.rows) if rows is None else rows - 1
    comparisons, level = max(compared, 1), ALPHA / max(compared, 1)
    cost, number = measured_cost(found.rows), len(found.rows) if rows is None else rows

    def option(replicates: int, seeds: int) -> Option:
        total = cost.total(number, replicates, seeds)
        if isinstance(spread, SeedSpread):
            return Option(replicates, seeds, spread.detectable(seeds, level), spread.power(effect, seeds, level), total)
        power = spread.power(effect, replicates, seeds, level)
        return Option(replicates, seeds, spread.detectable(replicates, seeds, level), power, total)

    if isinstance(spread, SeedSpread):
        seeds = spread.needed(effect, level)
        sizes = [option(1, factor * spread.seeds) for factor in (1, 2, 4)]
        needed = [] if seeds is None else [option(1, seeds)]
        bound = 0.0
    else:
        now = max(len(row.replicates) for row in found.rows)
        known = spread.seeds if math.isnan(spread.seed) else None
        offered = [known] if known else sorted({*SEEDS, spread.seeds})
        sizes = [option(factor * now, spread.seeds) for factor in (1, 2, 4)]
        found_sizes = [(spread.needed(effect, seeds, level), seeds) for seeds in offered]
        needed = [option(replicates, seeds) for replicates, seeds in found_sizes if replicates is not None]
        bound = spread.bound(spread.seeds, level) if spread.group > 0 else 0.0
    return Forecast(found.record.name, spread, comparisons, effect, cost.clock.unit, tuple(sizes), tuple(needed), bound)


def study_spread(runs: Runs, found: StudyRuns) -> ReplicateSpread | SeedSpread | None:
    """The spread that finished runs show: of differences over replicates, else of rows over seeds; None if neither."""
    named = {row.spec.name: row for row in found.rows if not row.measured.empty}
    variance, seeds, rows = _between_seeds(named.values())
    scores = compared_scores(runs, named, "accuracy") if named else {}
    controls = {name: row.control for name, row in named.items()}
    tests = [test for test in tests_to_control(scores, controls).values() if test.error > 0]
    if not tests:
        return SeedSpread(variance, seeds, rows) if variance > 0 else None
    known = next((score for score in scores.values() if score.groups), None)
    groups, tested = (0, 0.0) if known is None else (_groups(runs, found.rows), _tested(scores.values()))
    return spread_of_replicates(tests, 2 * variance, max(seeds, 1), groups, tested)


def _between_seeds(rows: Iterable[RowRuns]) -> tuple[float, int, int]:
    """Pooled variance between final runs of a replicate (NaN if none has two), the fewest such runs, and rows."""
    values = [[percents(one.measured, "test_accuracy") for one in row.replicates] for row in rows]
    several = [[found for found in row if len(found) > 1] for row in values]
    together = [found for row in several for found in row]
    if not together:
        return math.nan, 1, 0
    freedom = sum(len(found) - 1 for found in together)
    pooled = sum(float(found.var(ddof=1)) * (len(found) - 1) for found in together) / freedom
    return pooled, min(map(len, together)), sum(bool(row) for row in several)


def _groups(runs: Runs, rows: Sequence[RowRuns]) -> int:
    """Groups of the data: of a drawn split, all parts together."""
    splits = (find_record(Root(runs.root).split(row.fact("split")), SplitRecord) for row in rows if row.fact("split"))
    return next((len({name for part in split.parts.values() for name in part}) for split in splits if split), 0)


def _tested(scores: Iterable[Replicated]) -> float:
    """Test groups of a replicate, on average."""
    return float(np.mean([np.count_nonzero(score.shares, axis=1).mean() for score in scores if score.groups]))


def measured_cost(rows: Sequence[RowRuns]) -> Cost:
    """The mean cost of what has finished."""
    clock = choose_clock(rows)
    begun = [one for row in rows for one in row.replicates if len(one.measured)]
    final = pd.concat([one.measured for one in begun])
    teachers = first_lines(pd.concat([part for row in rows for part in (row.teachers, row.teacher_trials)]))
    replicates = len({one.spec.replicate for one in begun})
    return Cost(
        clock,
        (spent(pd.concat([one.tuning for one in begun]), clock.column) or 0.0) / len(begun),
        (spent(final, clock.column) or 0.0) / len(final),
        (spent(teachers, clock.column) or 0.0) / replicates,
        max(len(one.spec.seeds) for one in begun),
    )


def forecast_text(found: Forecast) -> str:
    """A forecast in lines."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Forecast) -> Iterator[str]:
    spread = found.spread
    test = f"5 % / {found.comparisons}, Holm's first step" if found.comparisons > 1 else "5 %"
    if isinstance(spread, SeedSpread):
        yield f"{found.study}: between final runs of one tuned row SD {_sd(spread.variance)} points of accuracy,"
        yield f"pooled over {count(spread.rows, 'row')}. This says nothing about another tuning: with one replicate, no"
        yield "number of seeds shows what a method does. Launch with --replicates, then ask again."
    else:
        yield (
            f"{found.study}: difference of a row and its control, from {count(spread.differences, 'comparison')} over "
            f"{count(spread.replicates, 'replicate')}:"
        )
        each = count(spread.seeds, "seed")
        yield f"  between replicates   SD {_sd(spread.noise)} points of accuracy, with {each} each"
        if not math.isnan(spread.seed):
            yield f"  between final runs   SD {_sd(spread.seed)} points, a part of it"
        if math.isnan(spread.group):
            yield (
                f"  between test groups  not known: each of the {spread.groups} groups was tested once; what "
                "replicates do not lower is taken as 0"
            )
        elif spread.groups:
            yield (
                f"  between test groups  standard error {_sd(spread.group)} points over all {spread.groups} groups, "
                "which replicates do not lower"
            )
    yield f"Two-sided test at {test}, power .8; costs in {found.unit}, as finished runs took them."
    yield ""
    yield from columns([_head(found), *(_cells(option) for option in found.sizes)])
    yield ""
    if not found.needed:
        limit = f": its test groups bound it at {significant(found.bound)} points" if found.bound else ""
        yield f"{found.effect:g} points: no number of replicates detects them{limit}"
        return
    yield f"needed for {found.effect:g} points:"
    yield from columns([_head(found), *(_cells(option) for option in found.needed)])


def _sd(variance: float) -> str:
    return significant(math.sqrt(variance))


def _head(found: Forecast) -> tuple[str, ...]:
    return ("replicates", "seeds", "detects (points)", f"power for {found.effect:g} points", found.unit)


def _cells(option: Option) -> tuple[str, ...]:
    detects = "-" if math.isinf(option.detectable) else significant(option.detectable)
    return (str(option.replicates), str(option.seeds), detects, f"{option.power:.2f}", significant(option.cost, 3))


def planned_power(root: Path, record: StudyRecord) -> str:
    """Say in one line what a planned study could detect, from runs of its rows that have finished under `root`."""
    if not any((root / "rows" / row.directory).is_dir() for row in record.rows):
        return f"not known: nothing of {record.name} has finished here; ask again after a few replicates (mmkd power)"
    runs = load(root)
    found = collect_record(runs, record)
    spread = study_spread(runs, found)
    if spread is None:
        return f"not known: {UNKNOWN}"
    comparisons = max(sum(row.control is not None for row in found.rows), 1)
    replicates = max(len(row.replicates) for row in found.rows)
    seeds = min(len(row.spec.seeds) for row in found.rows)
    level = ALPHA / comparisons
    if isinstance(spread, ReplicateSpread) and replicates > 1:
        detectable = spread.detectable(replicates, seeds, level)
        size = f"{count(replicates, 'replicate')} of {count(seeds, 'seed')}"
        origin = f"{count(spread.differences, 'comparison')} over {count(spread.replicates, 'finished replicate')}"
        origin += ", in which each test group was tested once" if math.isnan(spread.group) else ""
    elif isinstance(spread, SeedSpread) and replicates == 1:
        detectable = spread.detectable(seeds, level)
        size = f"{count(seeds, 'seed')} of one tuning per row"
        origin = f"the seeds of {count(spread.rows, 'finished row')}"
    else:
        return f"not known: {UNKNOWN}"
    detects = "no difference" if math.isinf(detectable) else f"{significant(detectable)} points"
    return f"detects {detects} with {size} (5 % / {comparisons}, power .8; spread of {origin})"
