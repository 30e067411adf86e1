"""What `slurm_faults.py` does to a study: a function a fault, and what each needs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from faulty_study import DIES_BEFORE_SBATCH, DIES_BETWEEN_SBATCH_AND_RECORD, FaultyStudy
from survival import attempts, wait_for

from slurm.devcluster import Options, up

BUDGET = ("--trials", "3", "--seeds", "1", "--epochs", "100")
"""Three trials and a final run, of 5 s each on a quiet machine beside 5 s in which they start."""
LONG = (*BUDGET[:4], "--epochs", "1000")
"""Trials of a minute, for a fault that Slurm notices after half of one."""
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
            study.cluster.start(node)


def silent_controller(study: FaultyStudy) -> None:
    """The scheduler does not answer for a minute."""
    with study.running():
        study.wait_until_training()
        study.cluster.stop("slurmctld")
        time.sleep(60)
        study.cluster.start("slurmctld")
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
        study.cluster.stop("slurmdbd")
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
    cluster = study.cluster = up(study.cluster.options, study.cluster.directory, fresh=True)
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
    "node": Scenario(node_failure, "node_fail", budget=LONG),
    "slurmctld": Scenario(silent_controller),
    "controller": Scenario(killed_controllers, budget=("--trials", "6", *BUDGET[2:]), slurm=TWO_SLOTS),
    "second": Scenario(second_controller),
    "no-sacct": Scenario(no_accounting, "preempted"),
    "rebuilt": Scenario(rebuilt_cluster, "node_fail"),
    "submit-limit": Scenario(submit_limit),
    "memory": Scenario(memory, "out_of_memory", slurm=("--slurm.mem", "200M")),
    "memory-cgroup": Scenario(memory, "out_of_memory", slurm=("--slurm.mem", "150M"), cluster=Options(cgroup=True)),
}
