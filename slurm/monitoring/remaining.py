"""Estimate the time to go, and add up slots and GPU-hours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mmkd.attempts import Attempt
from mmkd.formatting import remaining
from mmkd.rundir import Root
from slurm.monitoring.collecting import Survey
from slurm.monitoring.watching import Watched
from slurm.monitoring.workers import idle_gpu_seconds

ENOUGH = 3
"""Finished runs before a time is said."""
WINDOW_SECONDS = 600.0
"""Slots are averaged over the last ten minutes: a pause between two runs is part of the pace."""


@dataclass(frozen=True)
class Left:
    """Runs of a row that are not finished, those that run among them."""

    tuning: int
    confirm: int

    @property
    def runs(self) -> int:
        """All of them."""
        return self.tuning + self.confirm

    @property
    def stages(self) -> int:
        """Runs that must follow one another: final runs begin after the last tuning trial."""
        return (self.tuning > 0) + (self.confirm > 0)


@dataclass(frozen=True)
class GpuHours:
    """`spent` by ended attempts, as accounted or reckoned by the controller, and by running ones; `limit` if noted."""

    spent: float
    limit: float | None


@dataclass(frozen=True)
class Eta:
    """`seconds` to go: `runs` of `mean` seconds each on average, on `slots`; learned from `learned` finished runs."""

    seconds: float
    runs: int
    mean: float
    slots: float
    learned: int


def gpu_hours(trials: Sequence[Watched], survey: Survey) -> GpuHours:
    """GPU-hours of all attempts of the watched rows and teachers, and their budget, if each study noted one."""
    seconds = 0.0
    for watched in trials:
        for attempt in watched.trial.attempts:
            now = attempt.gpus * attempt.seconds(survey.taken, watched.trial.heard) if _runs(watched, attempt) else 0.0
            seconds += now or attempt.submitted.gpu_seconds or 0.0
    seconds += sum(idle_gpu_seconds(Root(survey.root), study.name) for study in survey.studies)
    limits = [study.record.max_gpu_hours for study in survey.studies]
    known = [limit for limit in limits if limit is not None]
    return GpuHours(seconds / 3600, sum(known) if known and len(known) == len(limits) else None)


def slots_in_use(trials: Sequence[Watched], now: float) -> float:
    """Jobs that run at once: on average over the last ten minutes, or since the first of those began; at least now."""
    spans = [
        (attempt.ran.started, now if _runs(watched, attempt) else attempt.ended or attempt.ran.started)
        for watched in trials
        for attempt in watched.trial.attempts
        if attempt.ran.started is not None
    ]
    recent = [(begin, end) for begin, end in spans if end > now - WINDOW_SECONDS]
    since = max(now - WINDOW_SECONDS, min((begin for begin, _ in recent), default=now))
    average = sum(end - max(begin, since) for begin, end in recent) / max(now - since, 1.0)
    return max(average, sum(watched.runs for watched in trials))


def forecast(
    trials: Sequence[Watched], left: Mapping[str, Left], teachers_left: int, slots: float, now: float
) -> Eta | str:
    """Estimate when all runs will be done, or say why that is impossible.

    A run is taken to last as long as the finished ones of its row did on average (all their attempts); where a row has
    none, as those of all rows. What running trials have done already is taken off. No row ends before a tuning trial
    and a final run one after the other, as far as it needs them.
    """
    runs = sum(row.runs for row in left.values()) + teachers_left
    if not runs:
        return "all is done" if trials else "nothing has begun"
    spent = _seconds_by_owner(trials, now)
    learned = [seconds for owner in spent.values() for seconds in owner]
    if not any(watched.is_busy for watched in trials):
        return "nothing runs just now"
    if len(learned) < ENOUGH or slots == 0:
        return f"no estimate before {ENOUGH} runs have finished"
    of_students = [seconds for owner in left for seconds in spent.get(owner, [])]
    of_teachers = [seconds for owner in spent.keys() - left.keys() for seconds in spent[owner]]
    student, teacher = fmean(of_students or learned), fmean(of_teachers or learned)
    means = {owner: fmean(spent[owner]) if owner in spent else student for owner in left}
    work = teachers_left * teacher + sum(means[owner] * row.runs for owner, row in left.items())
    shares: dict[str, list[float]] = defaultdict(list)
    for trial in (watched.trial for watched in trials if watched.is_open):
        epochs = trial.entry.epochs
        shares[trial.entry.owner].append(min(trial.epoch / epochs, 1.0) if epochs else 0.0)
    begun = sum(means.get(owner, teacher) * sum(done) for owner, done in shares.items())
    chains = (means[owner] * (row.stages - max(shares.get(owner, [0.0]))) for owner, row in left.items())
    return Eta(remaining(work - begun, slots, chains), runs, work / runs, slots, len(learned))


def _runs(watched: Watched, attempt: Attempt) -> bool:
    return watched.runs and attempt is watched.trial.last


def _seconds_by_owner(trials: Sequence[Watched], now: float) -> dict[str, list[float]]:
    """Seconds that each finished run took, by row or kind of teacher."""
    spent: dict[str, list[float]] = defaultdict(list)
    for trial in (watched.trial for watched in trials if watched.trial.status is not None):
        spent[trial.entry.owner].append(sum(attempt.seconds(now) for attempt in trial.attempts))
    return spent
