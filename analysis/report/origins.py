"""What ran, where and when: the facts that let others judge or repeat a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from analysis.loading.runs import Runs

HOUR = 3600


@dataclass(frozen=True)
class Fact:
    """A line of the provenance."""

    name: str
    value: str


def origins(runs: Runs, trials: pd.DataFrame) -> tuple[Fact, ...]:
    """The facts about these trials and their attempts; none that is not known."""
    attempts = runs.attempts[runs.attempts["directory"].isin(trials["directory"])]
    return tuple(fact for fact in _facts(trials, attempts) if fact.value)


def _facts(trials: pd.DataFrame, attempts: pd.DataFrame) -> Iterator[Fact]:
    yield Fact("trials", f"{len(trials)} ({counted(trials['kind'].str.cat(trials['status'], ' '))})")
    yield Fact("attempts", f"{len(attempts)} ({counted(attempts['end'].replace('', pd.NA).fillna('not ended'))})")
    yield Fact("time", f"{trials['seconds'].sum() / HOUR:.2f} hours, trials added up")
    known = trials["gpu_seconds"].dropna()
    if len(known):
        yield Fact("GPU-hours", f"{known.sum() / HOUR:.2f} (counted for {len(known)} of {len(trials)} trials)")
    yield Fact("from, to (UTC)", ", ".join(filter(None, [_date(attempts["started"].min()), _date(_last(attempts))])))
    yield Fact("code commits (+: changed since)", counted(trials["commit"]))
    yield Fact("data fingerprints", counted(trials["fingerprint"].str[:12]))
    yield Fact("hosts", counted(attempts["host"]))
    yield Fact("devices", counted(trials["device"]))
    yield Fact("Python", counted(attempts["python"]))
    for column in attempts.columns:
        if column.startswith("versions."):
            yield Fact(column.removeprefix("versions."), counted(attempts[column]))


def counted(values: pd.Series) -> str:
    """The distinct values, and where there are several how often each occurs; the commonest first."""
    counts = values.dropna().astype(str).value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return str(ordered[0][0]) if len(ordered) == 1 else ", ".join(f"{value}: {count}" for value, count in ordered)


def _last(attempts: pd.DataFrame) -> float:
    return float(attempts["ended"].max())


def _date(seconds: float) -> str:
    return "" if pd.isna(seconds) else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
