"""Check that all runs had the same code, packages, Python and kind of device, and recorded them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from analysis.checks.finding import REMARK, Finding, first_few
from analysis.loading.replicate_runs import FINISHED, ReplicateRuns
from analysis.loading.runs import Runs
from mmkd.formatting import count

Facts = Mapping[str, Any]

RECORDED: Mapping[str, Callable[[Facts], Any]] = {
    "torch versions": lambda facts: (facts.get("versions") or {}).get("torch"),
    "numpy versions": lambda facts: (facts.get("versions") or {}).get("numpy"),
    "Python versions": lambda facts: facts.get("python"),
    "code hashes": lambda facts: facts.get("code"),
    "devices": lambda facts: facts.get("device"),
}
"""Facts that the job of an attempt records about itself (`mmkd.provenance.describe_process`)."""

MISSING = "not recorded"


def unequal_environments(runs: Runs, rows: Sequence[ReplicateRuns]) -> Iterator[Finding]:
    """One finding for each fact that differs between finished runs, or that some did not record.

    Devices of several kinds are a remark: the numbers differ in their last digits, and a cluster often has them.
    """
    states = {d: s for row in rows for d, s in zip(row.values("directory"), row.values("status"), strict=True)}
    directories = [directory for directory, status in states.items() if status in FINISHED]
    attempts = ([a.ran for a in runs.recorded[name] if a.is_started] for name in directories)
    known = [[ran.model_extra or {} for ran in started] for started in attempts if started]
    for what, fact in RECORDED.items():
        values = Counter(" and ".join(dict.fromkeys(str(fact(facts) or MISSING) for facts in ran)) for ran in known)
        if len(values) > 1:
            listed = first_few(f"{value} ({number} of {len(known)} runs)" for value, number in values.items())
            yield Finding(REMARK if what == "devices" else "code", f"{what} are unequal: {listed}")
        elif MISSING in values:
            yield Finding(REMARK, f"{what} are not recorded, of {count(len(known), 'run')}")
