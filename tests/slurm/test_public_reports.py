"""Situations from public issue threads of tools that run on Slurm; docs/reliability.md lists them with their threads.

The commands are stubs that answer as the threads quote Slurm's.
"""

from pathlib import Path

import pytest
from stub_slurm import StubSlurm, queued

from mmkd.failures import Failure
from mmkd.rundir import TrialDir
from slurm.backend import Handle, Job, Report, SubmissionDelayed
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.controller.last_words import why_ended

MINE = Handle("mine", "7")


class Asked:
    """A backend and what it says of one job, each time half a minute later."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.backend = clock, SlurmBackend(SlurmSettings(poll=30))
        self.backend.poll([MINE])

    def __call__(self) -> Report:
        self.clock[0] += 31
        return self.backend.poll([MINE])[MINE]


def test_an_empty_answer_of_squeue_loses_no_job(stub: StubSlurm, clock: list[float]) -> None:
    """nextflow-io/nextflow#1644: the queue was empty for a moment, and running jobs counted as failed."""
    stub.answers("squeue", queued("7", "mine", "RUNNING"))
    asked = Asked(clock)
    assert asked().alive
    stub.answers("squeue")
    stub.answers("sacct", "7|RUNNING|0:0|10|gres/gpu=1|n2||mine")
    assert asked().alive
    calls = stub.calls("sacct")
    for _ in range(20):
        assert asked.backend.poll([MINE])[MINE].alive
    assert stub.calls("sacct") == calls, "and it is asked no more often"
    stub.answers("squeue", queued("7", "mine", "RUNNING"))
    assert asked().alive
    stub.answers("squeue")
    assert asked().alive, "the time begins again"
    assert asked().alive
    assert asked().failure == "node_fail", "after a minute it is lost"


def test_a_cluster_chosen_by_the_environment_is_the_same_for_all_commands(
    stub: StubSlurm, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsl/parsl#3675: jobs went to another cluster than the one that was asked."""
    monkeypatch.setenv("SLURM_CLUSTERS", "doduo")
    stub.answers("sbatch", "7;doduo")
    asked = Asked(clock)
    assert asked.backend.submit(Job("mine", ("python", "-c", ""), tmp_path / "log" / "a.log")) == MINE
    stub.answers("squeue", "CLUSTER: doduo", queued("7", "mine", "RUNNING"))
    report = asked()
    assert (report.alive, report.node) == (True, "n1"), "the heading is no job"
    for command in ("sbatch", "squeue"):
        assert stub.environment(command)["SLURM_CLUSTERS"] == "doduo"


def test_a_job_that_was_moved_to_another_partition_is_found(stub: StubSlurm, clock: list[float]) -> None:
    """nextflow-io/nextflow#1151: the queue was asked for the partition of the submission alone."""
    stub.answers("squeue", queued("7", "mine", "RUNNING").replace("|gpu|", "|cpu_long|"))
    assert Asked(clock)().alive
    assert "-p" not in stub.words("squeue")


def test_a_node_that_fails_to_boot_is_no_fault_of_the_job(stub: StubSlurm, clock: list[float]) -> None:
    """nextflow-io/nextflow#5298: such a job counted as running until a time limit passed."""
    stub.answers("squeue", queued("7", "mine", "BOOT_FAIL", node="n9"))
    report = Asked(clock)()
    assert (report.alive, report.failure, report.node) == (False, "node_fail", "n9")


def test_a_step_that_was_killed_for_memory_in_a_job_that_completed_is_out_of_memory(tmp_path: Path) -> None:
    """nextflow-io/nextflow#1285: the exit code was 0, and the next step took what was there."""
    directory = TrialDir(tmp_path)
    directory.log(1).parent.mkdir()
    directory.log(1).write_text("slurmstepd: error: Exceeded step memory limit at some point.\n")
    assert why_ended(directory, 1, "", "") == Failure.OUT_OF_MEMORY


def test_a_submission_that_failed_after_all_is_found_by_its_name(
    stub: StubSlurm, clock: list[float], tmp_path: Path
) -> None:
    """nextflow-io/nextflow#981: sbatch reported an error, and the job ran."""
    stub.complains("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    asked = Asked(clock)
    with pytest.raises(SubmissionDelayed) as delayed:
        asked.backend.submit(Job("mine", ("python", "-c", ""), tmp_path / "log" / "a.log"))
    assert not delayed.value.certain
    stub.answers("squeue", queued("7", "mine", "RUNNING"))
    unknown = Handle("mine")
    asked.backend.poll([unknown])
    clock[0] += 31
    assert asked.backend.poll([unknown])[unknown].handle == MINE


def test_jobs_that_left_the_queue_before_a_poll_have_ended(stub: StubSlurm, clock: list[float]) -> None:
    """Parsl/parsl#1588: squeue failed for ids that it no longer knew, and the job counted as running for ever."""
    stub.answers("squeue")
    stub.answers("sacct", "7|COMPLETED|0:0|10|gres/gpu=1|n2||mine")
    report = Asked(clock)()
    assert (report.alive, report.failure) == (False, "")
    assert "-j" not in stub.words("squeue")


@pytest.mark.parametrize(
    "complaint",
    [
        "Slurm accounting storage is disabled",
        "sacct: error: Sending PersistInit msg: Connection refused",
        "sacct: error: Problem talking to the database: Connection refused",
    ],
)
def test_accounting_that_is_off_or_refuses_ends_nothing(stub: StubSlurm, clock: list[float], complaint: str) -> None:
    """snakemake-executor-plugin-slurm#38 and #331: the workflow ended with a traceback."""
    stub.answers("squeue", queued("7", "mine", "RUNNING"))
    stub.complains("sacct", complaint)
    asked = Asked(clock)
    assert asked().alive
    assert asked.backend.usage([MINE], at_once=True) == {}
    stub.answers("squeue", queued("7", "mine", "FAILED"))
    assert asked().failure == "error"


def test_a_job_that_accounting_does_not_show_yet_is_pending(stub: StubSlurm, clock: list[float]) -> None:
    """jdblischak/smk-simple-slurm#9: a job in the queue counted as failed, by the record of an earlier one."""
    stub.answers("squeue", queued("7", "mine", "PENDING", "Priority", node=""))
    stub.answers("sacct", "7|FAILED|1:0|10|gres/gpu=1|n2||an-earlier-job")
    asked = Asked(clock)
    report = asked()
    assert (report.alive, report.message) == (True, "PENDING")
    assert asked.backend.usage([MINE], at_once=True) == {}, "ids repeat: the name must match too"


def test_accounting_is_asked_by_id_and_not_since_midnight(stub: StubSlurm, clock: list[float]) -> None:
    """snakemake/snakemake#1227: without ids, sacct shows the jobs since midnight alone."""
    stub.answers("squeue")
    stub.answers("sacct", "7|COMPLETED|0:0|100000|gres/gpu=1|n2||mine")
    Asked(clock)()
    words = stub.words("sacct")
    assert words[words.index("-j") + 1] == "7"


def test_a_preempted_job_with_a_short_time_limit_did_not_run_into_it(stub: StubSlurm, clock: list[float]) -> None:
    """facebookincubator/submitit#1656: with limits below ten minutes, each signal counted as the time limit."""
    stub.answers("squeue", queued("7", "mine", "PREEMPTED"))
    assert Asked(clock)().failure == "preempted"
    settings = SlurmSettings(time="5", grace=60)
    script = SlurmBackend(settings).script(Job("mine", ("python", "-c", ""), Path("/tmp/log/a.log")))
    assert "#SBATCH --signal=USR2@60" in script, "another signal than that of a preemption"


def test_slurm_may_not_requeue_a_job_behind_its_controllers_back(stub: StubSlurm) -> None:
    """facebookincubator/submitit#1708: at the time limit the job was requeued and killed at once."""
    script = SlurmBackend(SlurmSettings()).script(Job("mine", ("python", "-c", ""), Path("/tmp/log/a.log")))
    assert "#SBATCH --no-requeue" in script
