"""Break a real Slurm under a running study in the ways clusters break: `python tests/campaigns/slurm_faults.py`.

Brings up a Slurm of its own on this machine (docs/devcluster.md). For each scenario it starts a study, does its worst
in the middle, relaunches until the study is done, and compares with the same study run without Slurm and undisturbed:
every trial reported exactly once, the same numbers bit for bit, nothing left in the queue or on the disk. Exit code 1
if anything was lost or doubled, or if a fault did not hit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE.parent)]

from fault_scenarios import SCENARIOS, Scenario, undisturbed  # noqa: E402
from faulty_study import FaultyStudy  # noqa: E402
from survival import Stuck, attempts, broken, numbers, reported  # noqa: E402
from tiny_study import write_tiny_study  # noqa: E402

from slurm.devcluster import DevCluster, Options, attach, can_limit_by_cgroup, up  # noqa: E402
from slurm.local_backend import usable_cores  # noqa: E402


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario; `wrong` is empty if all is well."""

    name: str
    faults: Counter[str]
    ends: Counter[str | None]
    reported: str
    equal: str
    seconds: float
    wrong: list[str]


class Laboratory:
    """Runs scenarios in `folder`, one after the other, on one cluster."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self._cluster: DevCluster | None = None

    def run(self, name: str) -> Outcome:
        """One scenario."""
        scenario = SCENARIOS[name]
        expected = self._undisturbed(scenario)
        self._prepare_cluster(scenario.cluster)
        assert self._cluster is not None
        options = (*scenario.budget, *scenario.slurm)
        study = FaultyStudy(self._cluster, self._study(scenario), self.folder / name, options)
        self.console.print(f"{time.strftime('%H:%M:%S')} {name}: {scenario.disturb.__doc__}")
        started, wrong = time.monotonic(), []
        try:
            scenario.disturb(study)
        except Stuck as error:
            wrong.append(str(error))
        finally:
            study.stop_all()
        seconds = time.monotonic() - started
        ends = Counter(attempt.end for attempt in attempts(study.root))
        wrong += broken(study.root, expected)
        if not ends[scenario.hits] or (scenario.disturb is not undisturbed and not study.faults):
            wrong.append("the fault did not hit")
        trials, found = reported(study.root), numbers(study.root)
        once, equal = sum(len(said) == 1 for said in trials.values()), numbers(expected)
        same = sum(key in equal and equal[key] == value for key, value in found.items())
        return Outcome(
            name, study.faults, ends, f"{once} of {len(reported(expected))}", f"{same} of {len(equal)}", seconds, wrong
        )

    def close(self) -> None:
        """Take the cluster down."""
        if self._cluster is not None:
            attach(self._cluster.folder).down()

    def _prepare_cluster(self, options: Options) -> None:
        if self._cluster is not None and self._cluster.options != options:
            self.close()
        self._cluster = up(options, self.folder / "slurm")
        os.environ.update(self._cluster.environment)
        self._cluster.restore()

    def _study(self, scenario: Scenario) -> Path:
        folder = self.folder / f"{scenario.rows}-rows"
        return folder / "tiny.toml" if folder.exists() else write_tiny_study(folder, scenario.rows)

    def _undisturbed(self, scenario: Scenario) -> Path:
        """The root of the scenario's study as it runs on this machine's cores, one thread a trial as on Slurm."""
        study = self._study(scenario)
        root = study.parent / "-".join(scenario.budget).replace("--", "")
        if not root.exists():
            self.console.print(f"{time.strftime('%H:%M:%S')} without Slurm: {' '.join(scenario.budget)}")
            where = ("--study", study, "--root", root, "--cluster", "local", "--device", "cpu")
            command = [sys.executable, REPOSITORY / "sweeps" / "launch.py", *where, "--parallel", str(usable_cores())]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            subprocess.run([*command, *scenario.budget], check=True, env=environment, stdout=subprocess.DEVNULL)
        return root


def show(outcomes: list[Outcome], console: Console) -> None:
    """The table, and what is wrong."""
    table = Table("scenario", "faults injected", "attempts by class", "reported once", "equal numbers", "s", box=None)
    for o in outcomes:
        faults, ends = (", ".join(f"{count} {what}" for what, count in c.items()) for c in (o.faults, o.ends))
        table.add_row(o.name, faults or "none", ends, o.reported, o.equal, f"{o.seconds:.0f}")
    console.print(table)
    for o in outcomes:
        for line in o.wrong:
            console.print(f"{o.name}: {line}", style="red", markup=False)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help="may be repeated")
    parser.add_argument("--list", action="store_true", help="the scenarios, a line each, and stop")
    parser.add_argument(
        "--folder", type=Path, help="for cluster and studies, and kept (default: removed if all is well)"
    )
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if options.list:
        for name, scenario in SCENARIOS.items():
            console.print(f"{name:<14} {scenario.disturb.__doc__}")
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mmkd-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    laboratory, outcomes = Laboratory(folder, console), []
    try:
        for name in options.only or SCENARIOS:
            if SCENARIOS[name].cluster.cgroup and not can_limit_by_cgroup():
                console.print(f"{name}: left out, for the kernel's memory limits (cgroup v1) cannot be used here")
                continue
            outcomes.append(laboratory.run(name))
            console.print(f"{time.strftime('%H:%M:%S')} {name}: {'; '.join(outcomes[-1].wrong) or 'all is well'}")
    finally:
        laboratory.close()
        show(outcomes, console)
    wrong = any(outcome.wrong for outcome in outcomes)
    if wrong or options.folder:
        console.print(f"everything lies in {folder}")
    else:
        shutil.rmtree(folder)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
