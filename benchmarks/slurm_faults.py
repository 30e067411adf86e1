"""Break a real Slurm under a running study, in every way in which clusters break: `python benchmarks/slurm_faults.py`.

Brings up a Slurm of its own on this machine (docs/devcluster.md). For each scenario it starts a study, does its worst
in the middle, relaunches until the study is done, and compares with the same study run without Slurm and undisturbed:
every trial told exactly once, the same numbers bit for bit, nothing left in the queue or on the disk. Exit code 1 if
anything was lost or doubled, or if a fault did not hit.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from faulty_study import DIES_BEFORE_SBATCH, DIES_BETWEEN_SBATCH_AND_RECORD, FaultyStudy, wait_for  # noqa: E402
from survival import attempts, broken, numbers, told  # noqa: E402
from tiny_study import write_tiny_study  # noqa: E402

from slurm.devcluster import DevCluster, Options, attach, can_limit_by_cgroup, up  # noqa: E402
from slurm.local import usable_cores  # noqa: E402

BUDGET = ("--trials", "3", "--seeds", "1", "--epochs", "100")
"""Three trials and a confirming run, of 5 s each on a quiet machine beside 5 s in which they start."""
TWO_SLOTS = ("--slurm.nodelist", "n1")
KILLS = (DIES_BETWEEN_SBATCH_AND_RECORD, DIES_BEFORE_SBATCH, DIES_BETWEEN_SBATCH_AND_RECORD, *[""] * 7)


def undisturbed(study: FaultyStudy) -> None:
    """Nothing: 24 trials on 8 slots."""
    study.finish()


def preemption(study: FaultyStudy) -> None:
    """A job of a higher partition takes all nodes, twice."""
    with study.running():
        for _ in range(2):
            study.wait_until_training(2)
            wanted = ("--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2")
            urgent = study.cluster.run("sbatch", "--parsable", *wanted).strip()
            wait_for("the urgent job", lambda job=urgent: not study.cluster.run("squeue", "-h", "-j", job))
            study.faults["all nodes taken"] += 1


def time_limit(study: FaultyStudy) -> None:
    """A limit of one minute, the shortest that Slurm has, for trials that take longer."""
    study.finish()
    study.faults["time limit"] += sum(attempt.end == "timeout" for attempt in attempts(study.root))


def cancellation(study: FaultyStudy) -> None:
    """The user cancels a running job and one that waits in the queue, twice."""
    with study.running():
        for _ in range(2):
            running = study.wait_until_training()
            victims = [*running[:1], *study.jobs("PENDING")[:1]]
            study.cluster.run("scancel", *(job.id for job in victims))
            study.faults["job cancelled"] += len(victims)


def node_failure(study: FaultyStudy) -> None:
    """A node's slurmd is killed while its jobs live; later a node loses power."""
    with study.running():
        for power in (False, True):
            node = study.wait_until_training()[0].node
            study.cluster.kill_slurmd(node, steps=power)
            wait_for("the node to be down", lambda node=node: study.cluster.nodes()[node].startswith("down"))
            study.faults["node without power" if power else "slurmd killed"] += 1
            study.cluster.start_slurmd(node)


def silent_controller(study: FaultyStudy) -> None:
    """The scheduler does not answer for a minute."""
    with study.running():
        study.wait_until_training()
        study.cluster.stop_slurmctld()
        time.sleep(60)
        study.cluster.start_slurmctld()
        study.faults["slurmctld stopped for a minute"] += 1


def killed_controllers(study: FaultyStudy) -> None:
    """kill -9 of the study's controller at ten moments: between sbatch and record, before sbatch, and at random."""
    chance = random.Random(0)
    for patch in KILLS:
        controller = study.start(patch)
        if patch:
            controller.wait()
            study.faults["controller killed around sbatch"] += 1
            continue
        wait_for("the controller to work", lambda pid=controller.pid: is_at_work(study, pid))
        time.sleep(chance.uniform(0, 5))
        if controller.poll() is not None:
            raise RuntimeError("the study was done before its controller was killed ten times")
        study.kill_controller(controller)
    study.finish()


def is_at_work(study: FaultyStudy, controller: int) -> bool:
    """Whether the process holds the locks of the study's rows."""
    return any(f'"pid": {controller},' in lock.read_text() for lock in study.root.glob("rows/*/controller.lock"))


def second_controller(study: FaultyStudy) -> None:
    """The same command is started a second time: it is refused, and says who is at work."""
    with study.running() as first:
        study.wait_until_training()
        second = study.start()
        wait_for("the second controller's end", lambda: second.poll() is not None)
        if second.returncode != 2 or f"held by process {first.pid} on " not in study.said:
            raise RuntimeError(f"a second controller ended with {second.returncode} and said:\n{study.said}")
        study.faults["second controller refused"] += 1


def no_accounting(study: FaultyStudy) -> None:
    """slurmdbd is gone for good; a job is cancelled, and the controller killed."""
    with study.running() as controller:
        running = study.wait_until_training()
        study.cluster.stop_slurmdbd()
        study.faults["slurmdbd gone"] += 1
        study.cluster.run("scancel", running[0].id)
        study.faults["job cancelled"] += 1
        study.wait_until_training()
        study.kill_controller(controller)


def rebuilt_cluster(study: FaultyStudy) -> None:
    """The cluster forgets everything and counts job ids from 1 again; others' jobs have the ids that ours had."""
    controller = study.start()
    study.wait_until_training(2)
    ids = {int(job.id) for job in study.jobs()}
    study.kill_controller(controller)
    cluster = study.cluster = up(study.cluster.options, study.cluster.folder, fresh=True)
    wrap = ("--mem=10", "--time=600", "--nodelist=n4", "--output=/dev/null", "--wrap", "sleep 36000")
    others = [cluster.run("sbatch", "--parsable", *wrap).strip() for _ in range(max(ids))]
    study.faults["job ids repeated"] += len(ids & set(map(int, others)))
    study.finish()
    left = cluster.run("squeue", "-h", "-o", "%i").split()
    if set(left) != set(others):
        raise RuntimeError(f"others' jobs were touched: of {others} are left {left}")


def submit_limit(study: FaultyStudy) -> None:
    """The site lets a user have two jobs in the queue, and the study wants eight."""
    study.cluster.set_max_submit(2)
    with study.running():
        wait_for("a refused submission", lambda: "QOSMaxSubmitJobPerUserLimit" in study.said)
        study.faults["submit limit of 2"] += 1


def memory(study: FaultyStudy) -> None:
    """Jobs ask for less memory than Python with torch takes: killed, they ask for more."""
    study.finish()
    study.faults["killed for memory"] += sum(attempt.end == "out_of_memory" for attempt in attempts(study.root))


@dataclass(frozen=True)
class Scenario:
    """`disturb` does what its docstring says, and returns when the study is done.

    `hits` is a class of which at least one attempt must be, or the fault did not hit; `rows` cuts the study short: with
    two there are teachers too.
    """

    disturb: Callable[[FaultyStudy], None]
    hits: str = "complete"
    budget: tuple[str, ...] = BUDGET
    slurm: tuple[str, ...] = ()
    cluster: Options = field(default_factory=Options)
    rows: int = 1


SCENARIOS = {
    "undisturbed": Scenario(undisturbed, budget=("--trials", "12", "--seeds", "1", "--epochs", "3"), rows=2),
    "preemption": Scenario(preemption, "preempted", rows=2),
    "time-limit": Scenario(
        time_limit,
        "timeout",
        budget=("--trials", "1", "--seeds", "1", "--epochs", "1000"),
        slurm=("--slurm.time", "1", "--slurm.grace", "30"),
    ),
    "scancel": Scenario(cancellation, "cancelled", slurm=TWO_SLOTS),
    "node": Scenario(node_failure, "node_fail"),
    "slurmctld": Scenario(silent_controller),
    "controller": Scenario(killed_controllers, budget=("--trials", "6", *BUDGET[2:]), slurm=TWO_SLOTS),
    "second": Scenario(second_controller),
    "no-sacct": Scenario(no_accounting, "preempted"),
    "rebuilt": Scenario(rebuilt_cluster, "node_fail"),
    "submit-limit": Scenario(submit_limit),
    "memory": Scenario(memory, "out_of_memory", slurm=("--slurm.mem", "200M")),
    "memory-cgroup": Scenario(memory, "out_of_memory", slurm=("--slurm.mem", "150M"), cluster=Options(cgroup=True)),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario; `wrong` is empty if all is well."""

    name: str
    faults: Counter[str]
    ends: Counter[str | None]
    told: str
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
        except (TimeoutError, RuntimeError) as error:
            wrong.append(str(error))
        finally:
            study.stop_all()
        seconds = time.monotonic() - started
        ends = Counter(attempt.end for attempt in attempts(study.root))
        wrong += broken(study.root, expected)
        if not ends[scenario.hits] or (scenario.disturb is not undisturbed and not study.faults):
            wrong.append("the fault did not hit")
        trials, found = told(study.root), numbers(study.root)
        once, equal = sum(len(said) == 1 for said in trials.values()), numbers(expected)
        same = sum(key in equal and equal[key] == value for key, value in found.items())
        return Outcome(
            name, study.faults, ends, f"{once} of {len(told(expected))}", f"{same} of {len(equal)}", seconds, wrong
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
            command = [sys.executable, HERE.parent / "sweeps" / "launch.py", *where, "--parallel", str(usable_cores())]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
            subprocess.run([*command, *scenario.budget], check=True, env=environment, stdout=subprocess.DEVNULL)
        return root


def show(outcomes: list[Outcome], console: Console) -> None:
    """The table, and what is wrong."""
    table = Table("scenario", "faults injected", "attempts by class", "told once", "equal numbers", "s", box=None)
    for o in outcomes:
        faults, ends = (", ".join(f"{count} {what}" for what, count in c.items()) for c in (o.faults, o.ends))
        table.add_row(o.name, faults or "none", ends, o.told, o.equal, f"{o.seconds:.0f}")
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
