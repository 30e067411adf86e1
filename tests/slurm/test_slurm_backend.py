"""The Slurm backend against commands that say what Slurm was seen to say. The real one: test_slurm_survival.py."""

import os
import time
from pathlib import Path

import pytest
from stub_slurm import StubSlurm, queued
from survival import wait_for

from slurm.accounting import KILLED_FOR_MEMORY, sacct, squeue
from slurm.backend import Handle, Job, Report, SubmissionRefused
from slurm.settings import SlurmSettings
from slurm.slurm_backend import ABSENT_SECONDS, SlurmBackend


def backend(**settings: object) -> SlurmBackend:
    return SlurmBackend(SlurmSettings.model_validate({"poll": 30, **settings}))


def ask(cluster: SlurmBackend, handle: Handle, clock: list[float], after: float = 31) -> Report:
    """What the backend knows of a job, some seconds after it first saw it."""
    cluster.poll([handle])
    clock[0] += after
    return cluster.poll([handle])[handle]


def ask_long(cluster: SlurmBackend, handle: Handle, clock: list[float]) -> Report:
    """What the backend knows of a job after squeue has lacked it for so long that it counts as lost."""
    ask(cluster, handle, clock)
    for _ in range(3):
        clock[0] += 31
        report = cluster.poll([handle])[handle]
    return report


# --- what Slurm prints


def test_the_queue_is_read_whatever_stands_in_names(stub: StubSlurm) -> None:
    other = "others' job\n7|with|bars|and a line's end"
    stub.answers("squeue", queued("1", "a|b c", "RUNNING"), queued("2", other, "PENDING"), queued("3", "c", "TIMEOUT"))
    found = {job.id: job for job in squeue()}
    assert set(found) == {"1", "2", "3"}
    assert (found["1"].name, found["1"].state, found["1"].node, found["1"].used) == ("a|b c", "RUNNING", "n1", "0:10")
    assert [found[number].ended for number in ("1", "2", "3")] == [False, False, True]


def test_the_queue_is_asked_by_the_users_number_in_all_partitions_whatever_he_has_set(
    stub: StubSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.setenv("SQUEUE_PARTITION", "cpu")
    squeue()
    words = stub.words("squeue")
    assert words[words.index("-u") + 1] == str(os.getuid())
    assert "-a" in words
    assert "SQUEUE_PARTITION" not in stub.environment("squeue")


def test_accounts_are_read_with_their_steps(stub: StubSlurm) -> None:
    stub.answers(
        "sacct",
        "1|CANCELLED by 0|0:0|65|billing=1,cpu=1,gres/gpu=2,mem=1G,node=1|n1||mine.t1",
        "1.batch|CANCELLED|0:15|65|cpu=1|n1|12508K|batch",
        "1.0|FAILED|75:0|64|cpu=1,gres/gpu=2|n1|301640K|python",
        "2|FAILED|1:0|9|cpu=1,gres/gpu=1|n2||mine|t2",
        "2.batch|FAILED|1:0|9|cpu=1|n2|12552K|batch",
        "2.0|OUT_OF_MEMORY|0:125|9|cpu=1|n2|125720K|python",
        "3|CANCELLED|0:0|||None assigned||mine.t3",
    )
    found = sacct(["1", "2", "3", "4"])
    assert set(found) == {"1", "2", "3"}
    expected = {"elapsed": 65, "gpu_seconds": 130, "max_rss_mb": 294.6, "node": "n1", "state": "CANCELLED"}
    assert (found["1"].state, found["1"].name, dict(found["1"].facts)) == ("CANCELLED", "mine.t1", expected)
    assert (found["2"].state, found["2"].name) == ("OUT_OF_MEMORY", "mine|t2"), "a step was killed, the shell failed"
    assert dict(found["3"].facts) == {"elapsed": 0, "gpu_seconds": 0, "state": "CANCELLED"}


def test_accounting_is_not_asked_for_what_is_no_job_id(stub: StubSlurm) -> None:
    sacct(["12", "host:812:1718.22:0", ""])
    words = stub.words("sacct")
    assert words[words.index("-j") + 1] == "12"
    assert sacct(["host:812:1718.22:0"]) == {}
    assert stub.calls("sacct") == 1


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-n1: error: StepId=12.0 exceeded memory limit (308879360 > 209715200), being killed",
        "slurmstepd: error: Exceeded job memory limit",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0. Some of your processes may have been killed",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.",
        "srun: error: n1: task 0: Out Of Memory",
    ],
)
def test_a_kill_for_lack_of_memory_is_known_by_slurms_words(line: str) -> None:
    assert KILLED_FOR_MEMORY.search(f"epoch 3\n{line}\nsrun: error: n1: task 0: Killed\n")


@pytest.mark.parametrize(
    "line",
    ["RuntimeError: Out Of Memory", "srun: error: n1: task 0: Killed", "slurmstepd: error: *** JOB 6 CANCELLED ***"],
)
def test_other_words_are_no_kill_for_lack_of_memory(line: str) -> None:
    assert not KILLED_FOR_MEMORY.search(f"epoch 3\n{line}\n")


# --- what became of a job


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING", (True, "")),
        ("RUNNING", (True, "")),
        ("COMPLETING", (True, "")),
        ("SUSPENDED", (True, "")),
        ("REQUEUE_HOLD", (True, "")),
        ("COMPLETED", (False, "")),
        ("FAILED", (False, "error")),
        ("TIMEOUT", (False, "timeout")),
        ("DEADLINE", (False, "timeout")),
        ("PREEMPTED", (False, "preempted")),
        ("CANCELLED", (False, "cancelled")),
        ("NODE_FAIL", (False, "node_fail")),
        ("BOOT_FAIL", (False, "node_fail")),
        ("OUT_OF_MEMORY", (False, "out_of_memory")),
    ],
)
def test_a_state_is_alive_or_a_class(
    state: str, expected: tuple[bool, str], stub: StubSlurm, clock: list[float]
) -> None:
    stub.answers("squeue", queued("7", "mine", state, node="n3"))
    report = ask(backend(), Handle("mine", "7"), clock)
    assert (report.alive, report.failure, report.handle, report.node) == (*expected, Handle("mine", "7"), "n3")


def test_slurm_is_asked_once_a_while_for_all_jobs(stub: StubSlurm, clock: list[float]) -> None:
    handles = [Handle(f"job {number}", str(number)) for number in range(200)]
    stub.answers("squeue", *(queued(handle.id, handle.name, "RUNNING") for handle in handles))
    cluster = backend(poll=30)
    for _ in range(100):
        clock[0] += 1
        assert all(report.alive for report in cluster.poll(handles).values())
    assert stub.calls("squeue") == 4
    assert stub.calls("sacct") == 0


def test_a_job_is_alive_until_an_answer_younger_than_itself_lacks_it(stub: StubSlurm, clock: list[float]) -> None:
    cluster, old, new = backend(), Handle("old", "1"), Handle("new", "2")
    stub.answers("squeue", queued("1", "old", "RUNNING"))
    cluster.poll([old])
    clock[0] += 1
    assert cluster.poll([old, new])[new].alive, "the last answer is older"


def test_where_squeue_does_not_answer_all_jobs_are_alive(stub: StubSlurm, clock: list[float]) -> None:
    stub.complains("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert ask(backend(), Handle("mine", "7"), clock, after=10_000).alive
    assert stub.calls("sacct") == 0


def test_what_the_queue_has_forgotten_accounting_tells(stub: StubSlurm, clock: list[float]) -> None:
    stub.answers("sacct", "7|TIMEOUT|0:0|3600|gres/gpu=1|n2||mine")
    report = ask(backend(), Handle("mine", "7"), clock)
    assert (report.alive, report.failure, report.node) == (False, "timeout", "n2")


def test_without_accounting_a_forgotten_job_is_gone(stub: StubSlurm, clock: list[float]) -> None:
    stub.complains("sacct", "Slurm accounting storage is disabled")
    cluster, mine = backend(), Handle("mine", "7")
    assert ask(cluster, mine, clock).alive, "one answer may be empty by mistake"
    report = ask_long(cluster, mine, clock)
    assert (report.alive, report.failure) == (False, "node_fail")


def test_an_id_that_another_job_bears_by_now_is_not_ours(stub: StubSlurm, clock: list[float]) -> None:
    stub.answers("squeue", queued("7", "somebody's", "RUNNING"))
    stub.answers("sacct", "7|RUNNING|0:0|3600|gres/gpu=1|n2||somebody's")
    cluster, mine = backend(), Handle("mine", "7")
    report = ask_long(cluster, mine, clock)
    assert (report.alive, report.failure) == (False, "node_fail")
    assert cluster.usage([mine], at_once=True) == {}
    cluster.cancel([mine])
    assert stub.calls("scancel") == 0


def test_a_job_whose_id_nobody_noted_is_found_by_its_name(stub: StubSlurm, clock: list[float]) -> None:
    stub.answers("squeue", queued("6", "mine.a1", "RUNNING"), queued("7", "mine.a2", "PENDING"))
    report = ask(backend(), Handle("mine.a2"), clock)
    assert (report.alive, report.handle.id) == (True, "7")


def test_a_job_that_was_only_announced_is_given_time_to_appear(stub: StubSlurm, clock: list[float]) -> None:
    cluster, announced = backend(poll=5), Handle("mine.a1")
    assert ask(cluster, announced, clock, after=ABSENT_SECONDS - 6).alive, "its sbatch may still be at work"
    clock[0] += 12
    report = cluster.poll([announced])[announced]
    assert (report.alive, report.failure, report.message) == (False, "cancelled", "Slurm has no job of that name")


def test_usage_tells_of_jobs_that_ended_and_asks_at_a_polite_rate(stub: StubSlurm, clock: list[float]) -> None:
    stub.answers("sacct", "7|COMPLETED|0:0|10|gres/gpu=2|n2||a", "8|RUNNING|0:0|10|gres/gpu=2|n2||b")
    cluster, handles = backend(poll=30), [Handle("a", "7"), Handle("b", "8"), Handle("c")]
    assert {h.name: facts["gpu_seconds"] for h, facts in cluster.usage(handles).items()} == {"a": 20}
    assert cluster.usage(handles) == {}
    assert len(cluster.usage(handles, at_once=True)) == 1
    assert stub.calls("sacct") == 2


def test_cancelling_passes_over_what_has_ended(stub: StubSlurm) -> None:
    stub.answers("squeue", queued("1", "a", "RUNNING"), queued("2", "b", "COMPLETED"), queued("3", "c", "PENDING"))
    backend().cancel([Handle("a", "1"), Handle("b", "2"), Handle("c"), Handle("d", "4")])
    assert [word for word in stub.words("scancel") if word.isdecimal()] == ["1", "3"]


def test_a_cancellation_that_slurm_does_not_hear_is_said(stub: StubSlurm) -> None:
    stub.answers("squeue", queued("1", "a", "RUNNING"))
    stub.complains("scancel", "scancel: error: Unable to contact slurm controller")
    with pytest.raises(ConnectionError, match="continue: scancel: error: Unable to contact slurm controller"):
        backend().cancel([Handle("a", "1")])


def test_a_machine_without_slurm_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionRefused, match="--cluster local"):
        backend()


# --- what people and slow daemons do to it


def test_a_job_that_was_renamed_is_found_by_its_script(stub: StubSlurm, clock: list[float], tmp_path: Path) -> None:
    cluster, script = backend(), str(tmp_path / "attempt-1.sbatch")
    mine = Handle("mine", "7", script=script)
    assert mine == Handle("mine", "7"), "the script is no part of its identity"
    cluster._renamed["7"] = True  # as squeue -o %o said
    stub.answers("squeue", queued("7", "important", "RUNNING", node="n2"))
    report = ask(cluster, mine, clock)
    assert (report.alive, report.message, report.node) == (True, "RUNNING", "n2")
    cluster.cancel([mine])
    assert "7" in stub.words("scancel")
    stub.answers("squeue")
    stub.answers("sacct", "7|COMPLETED|0:0|10|gres/gpu=2|n2||important")
    clock[0] += 31
    assert cluster.poll([mine])[mine].failure == ""
    assert cluster.usage([mine], at_once=True)[mine]["gpu_seconds"] == 20


def test_slurm_is_asked_once_whose_script_a_job_of_another_name_runs(stub: StubSlurm, clock: list[float]) -> None:
    stub.answers("squeue", queued("7", "somebody's", "RUNNING"))
    cluster = backend()
    mine = Handle("mine", "7", script="/root/rows/r/trials/0/log/attempt-1.sbatch")
    assert not ask_long(cluster, mine, clock).alive, "its answer is no such path"
    calls = stub.calls("squeue")
    cluster.poll([mine])
    assert stub.calls("squeue") == calls


def test_a_queue_that_hangs_is_reported_at_once_and_stops_nothing(
    stub: StubSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm.slurm_backend.QUICK_SECONDS", 0.2)
    monkeypatch.setattr(SlurmBackend._ask, "__defaults__", (0.2,))
    cluster, mine = backend(poll=0.01), Handle("mine", "7")
    stub.hangs("squeue", 1.5)
    began = time.monotonic()
    cluster.poll([mine])
    for _ in range(20):
        assert cluster.poll([mine])[mine].alive
    assert time.monotonic() - began < 1.0
    assert "squeue has not answered for" in cluster.trouble
    stub.hangs("squeue", 0)
    stub.answers("squeue", queued("7", "mine", "TIMEOUT"))
    wait_for("an answer", lambda: not cluster.poll([mine])[mine].alive, 20)
    assert cluster.trouble == ""


def test_accounting_that_hangs_leaves_jobs_running_until_it_answers(
    stub: StubSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm.slurm_backend.QUICK_SECONDS", 0.1)
    cluster, mine = backend(poll=0.01), Handle("mine", "7")
    stub.answers("sacct", "7|FAILED|1:0|10|gres/gpu=2|n2||mine")
    stub.hangs("sacct", 1.0)
    cluster.poll([mine])
    time.sleep(0.05)
    assert cluster.poll([mine])[mine].alive
    failed = Report(False, "error", "Slurm says FAILED (1:0)", mine, "n2")
    wait_for("sacct", lambda: cluster.poll([mine])[mine] == failed, 20)


@pytest.mark.parametrize("name", ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY"])
def test_what_reaches_the_cluster_is_kept_and_what_a_job_sets_is_dropped(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "value")
    monkeypatch.setenv("SLURM_EXPORT_ENV", "NONE")
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    stub.answers("sbatch", "17")
    job = Job("mine", ("python", "-c", ""), tmp_path / "log" / "attempt-1.log", {"OMP_NUM_THREADS": "3"})
    handle = backend().submit(job)
    assert handle.script == str(tmp_path / "log" / "attempt-1.sbatch")
    environment = stub.environment("sbatch")
    assert environment[name] == "value"
    assert not {"SLURM_EXPORT_ENV", "SBATCH_EXPORT"} & environment.keys()
    assert "srun --export=ALL " in Path(handle.script).read_text(), "also after --slurm.extra export=NONE"
