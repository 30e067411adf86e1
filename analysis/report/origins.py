"""Provenance: code, data, machines and times, so that others can judge or repeat a study."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from analysis.loading.runs import Runs

HOUR = 3600


def origins(runs: Runs, trials: pd.DataFrame) -> dict[str, str]:
    """The known facts about these trials and their attempts, by name."""
    attempts = runs.attempts[runs.attempts["directory"].isin(trials["directory"])]
    gpu = trials["gpu_seconds"].dropna()
    gpu_hours = f"{gpu.sum() / HOUR:.2f} (counted for {len(gpu)} of {len(trials)} trials)" if len(gpu) else ""
    versions = [column for column in attempts.columns if column.startswith("versions.")]
    facts = {
        "trials": f"{len(trials)} ({counted(trials['kind'].str.cat(trials['status'], ' '))})",
        "attempts": f"{len(attempts)} ({counted(attempts['end'].replace('', pd.NA).fillna('not ended'))})",
        "time": f"{trials['seconds'].sum() / HOUR:.2f} hours, trials added up",
        "GPU-hours": gpu_hours,
        "from, to (UTC)": ", ".join(filter(None, map(_date, (attempts["started"].min(), attempts["ended"].max())))),
        "code commits (+: changed since)": counted(trials["commit"]),
        "data fingerprints": counted(trials["fingerprint"].str[:12]),
        "hosts": counted(attempts["host"]),
        "devices": counted(trials["device"]),
        "Python": counted(attempts["python"]),
        **{column.removeprefix("versions."): counted(attempts[column]) for column in versions},
    }
    return {name: value for name, value in facts.items() if value}


def counted(values: pd.Series) -> str:
    """The distinct values, and where there are several how often each occurs; the most frequent first."""
    counts = values.dropna().astype(str).value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return str(ordered[0][0]) if len(ordered) == 1 else ", ".join(f"{value}: {count}" for value, count in ordered)


def _date(seconds: float) -> str:
    return "" if pd.isna(seconds) else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
