"""Workers on Slurm as the controller sees them: submission, assignment, and what each end means. Real: tests/slurm."""

import sys
from pathlib import Path

import pytest
from stub_slurm import StubSlurm, install, queued

from mmkd.forked_trials import memory_kills
from mmkd.records import AssignmentRecord, ProcessRecord, WorkerRecord, read_record, write_record
from mmkd.rundir import Root, WorkerDir
from slurm.backend import Handle, Job, SubmissionDelayed, SubmissionRefused
from slurm.settings import SlurmSettings
from sweeps.controller.job_names import worker_job
from sweeps.controller.slurm_workers import SILENT_SECONDS, WorkerBackend

TRIAL = (sys.executable, "-m", "mmkd.trial", "/trial", "--attempt", "1")


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubSlurm:
    made = install(tmp_path / "stubs", monkeypatch)
    made.answers("sbatch", "7")
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time stands still; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path / "runs")
    made.path.mkdir()
    return made


def backend(root: Root, **settings: object) -> WorkerBackend:
    chosen = {"poll": 30, "workers": 2, "trials_per_worker": 4, "gpus": "2", **settings}
    return WorkerBackend(SlurmSettings.model_validate(chosen), root, "mine", {})


def job(root: Root, number: int = 0, memory: float = 1.0) -> Job:
    return Job(f"mmkd-1.row.t{number}.a1", TRIAL, root.path / f"log/{number}.txt", {"OMP_NUM_THREADS": "1"}, memory)


def start(root: Root, identifier: str, beat: int = 1, seconds: float = 0.0, busy: float = 0.0) -> WorkerDir:
    """A worker of that job has started."""
    worker = root.worker(identifier)
    worker.inbox.mkdir(parents=True, exist_ok=True)
    worker.process("").parent.mkdir(exist_ok=True)
    facts = {"study": "mine", "slots": 4, "gpus": 2, "node": "n1", "beat": beat, "seconds": seconds, "taken": 0}
    write_record(worker.record, WorkerRecord.model_validate({**facts, "busy": busy}))
    return worker


def in_queue(stub: StubSlurm, root: Root, **states: str) -> None:
    """The queue shows the workers `_7_0="RUNNING"`, ..."""
    lines = [queued(identifier[1:], worker_job(root, "mine"), state) for identifier, state in states.items()]
    stub.answers("squeue", *lines)


def later(clock: list[float], seconds: float = 31.0) -> None:
    clock[0] += seconds


def test_as_many_workers_are_submitted_as_the_work_needs_and_as_one_array(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    cluster = backend(root)
    assert cluster.slots(lambda: 3) == 0
    script = root.worker_script("mine").read_text()
    assert "#SBATCH --array=0-0" in script
    assert "-m mmkd.worker" in script
    later(clock)
    in_queue(stub, root, _7_0="PENDING")
    stub.answers("sbatch", "8")
    assert cluster.slots(lambda: 99) == 0
    assert stub.calls("sbatch") == 2
    later(clock)
    in_queue(stub, root, _7_0="RUNNING", _8_0="PENDING")
    start(root, "7_0")
    assert cluster.slots(lambda: 99) == 4
    assert stub.calls("sbatch") == 2


def test_workers_that_the_queue_has_are_not_submitted_again_by_a_relaunch(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING", _7_1="PENDING")
    start(root, "7_0")
    assert backend(root).slots(lambda: 99) == 4
    assert stub.calls("sbatch") == 0


def test_a_closed_worker_is_replaced_while_its_trials_end(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    in_queue(stub, root, _7_0="RUNNING", _7_1="RUNNING")
    for identifier in ("7_0", "7_1"):
        start(root, identifier)
    cluster = backend(root)
    assert cluster.slots(lambda: 99) == 8
    root.worker("7_0").closed.touch()
    later(clock, 1)
    assert cluster.slots(lambda: 99) == 4
    assert "#SBATCH --array=0-0" in root.worker_script("mine").read_text()


def test_trials_are_spread_and_a_full_worker_gets_none(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    in_queue(stub, root, _7_0="RUNNING", _7_1="RUNNING")
    workers = [start(root, "7_0"), start(root, "7_1")]
    cluster = backend(root)
    cluster.slots(lambda: 99)
    handles = [cluster.submit(job(root, number)) for number in range(8)]
    assert [len(list(worker.inbox.iterdir())) for worker in workers] == [4, 4]
    assert handles[0] == Handle(worker_job(root, "mine"), handles[0].id, "mmkd-1.row.t0.a1")
    assignment = read_record(root.worker(handles[0].id).inbox / "mmkd-1.row.t0.a1.json", AssignmentRecord)
    assert assignment.arguments == TRIAL[3:]
    with pytest.raises(SubmissionDelayed, match="no worker has 1 free slot"):
        cluster.submit(job(root, 8))
    cluster.poll(handles[1:])  # the first trial's own record says that it ended
    assert cluster.submit(job(root, 8)).id == handles[0].id


def test_a_trial_that_ran_out_of_memory_gets_more_slots_and_then_a_job_of_its_own(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    worker = start(root, "7_0")
    cluster = backend(root, workers=1, mem="8G")
    cluster.slots(lambda: 99)
    cluster.submit(job(root, 0))
    cluster.submit(job(root, 1, memory=2.0))
    assert read_record(worker.inbox / "mmkd-1.row.t1.a1.json", AssignmentRecord).slots == 2
    with pytest.raises(SubmissionDelayed, match="no worker has 4 free slots"):
        cluster.submit(job(root, 2, memory=4.0))
    assert [cluster.gpus_for(job(root, 0, memory)) for memory in (1.0, 2.0, 4.0)] == [0.5, 1.0, 2.0]
    alone = job(root, 3, memory=8.0)
    assert cluster.submit(alone) == Handle(alone.name, "7")
    assert "#SBATCH --mem=16384M" in alone.log.with_suffix(".sbatch").read_text()
    assert cluster.gpus_for(alone) == 2.0


@pytest.mark.parametrize(
    ("process", "failure"),
    [
        (ProcessRecord(pid=1, started=0.0), None),
        (ProcessRecord(pid=1, started=0.0, code=0), ""),
        (ProcessRecord(pid=1, started=0.0, code=1), "error"),
        (ProcessRecord(pid=1, started=0.0, code=-9), "node_fail"),
        (ProcessRecord(pid=1, started=0.0, code=-9, failure="out_of_memory"), "out_of_memory"),
    ],
)
def test_an_ended_process_is_seen_while_its_worker_lives(
    process: ProcessRecord, failure: str | None, stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    worker = start(root, "7_0")
    cluster = backend(root)
    cluster.slots(lambda: 99)
    handle = cluster.submit(job(root))
    (worker.inbox / f"{handle.worker}.json").unlink()
    write_record(worker.process(handle.worker), process)
    later(clock)
    report = cluster.poll([handle])[handle]
    assert (report.alive, report.failure) == ((True, "") if failure is None else (False, failure))


@pytest.mark.parametrize(("state", "failure"), [("NODE_FAIL", "node_fail"), ("PREEMPTED", "preempted")])
def test_trials_of_a_dead_worker_end_as_its_job_did(
    state: str, failure: str, stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    worker = start(root, "7_0")
    cluster = backend(root)
    cluster.slots(lambda: 99)
    handles = [cluster.submit(job(root, number)) for number in range(2)]
    cluster.poll(handles)
    in_queue(stub, root, _7_0=state)
    later(clock)
    reports = cluster.poll(handles)
    assert [(reports[h].alive, reports[h].failure) for h in handles] == [(False, failure)] * 2
    assert not worker.inbox.exists(), "nobody else will take it"
    assert worker.record.exists()


def test_what_a_closed_worker_left_in_its_inbox_is_withdrawn(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    worker = start(root, "7_0")
    cluster = backend(root)
    cluster.slots(lambda: 99)
    handle = cluster.submit(job(root))
    worker.closed.touch()
    later(clock)
    report = cluster.poll([handle])[handle]
    assert (report.alive, report.failure) == (False, "cancelled")
    assert not list(worker.inbox.iterdir())


def test_an_assignment_whose_controller_died_is_found_by_its_name(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    start(root, "7_0")
    first = backend(root)
    first.slots(lambda: 99)
    assigned = first.submit(job(root))
    second = backend(root)
    nameless = Handle(assigned.worker)
    report = second.poll([nameless])[nameless]
    assert (report.alive, report.handle) == (True, assigned)


def test_a_worker_that_does_not_count_up_is_cancelled(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    in_queue(stub, root, _7_0="RUNNING", _7_1="RUNNING")
    start(root, "7_0")
    start(root, "7_1")
    cluster = backend(root)
    cluster.slots(lambda: 99)
    later(clock, SILENT_SECONDS - 1)
    start(root, "7_1", beat=2)
    cluster.slots(lambda: 99)
    assert stub.calls("scancel") == 0
    later(clock, 2)
    cluster.slots(lambda: 99)
    assert stub.words("scancel")[-1] == "7_0"


def test_workers_that_end_before_they_start_avoid_the_node_and_end_the_launch_where_there_is_no_other(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    cluster = backend(root)
    cluster.slots(lambda: 99)
    (root.workers / "mine.7_1.log").write_text("mmkd: setup line failed (exit 1): module load none\n")
    in_queue(stub, root, _7_0="FAILED", _7_1="FAILED")
    later(clock)
    stub.answers("sbatch", "8")
    cluster.slots(lambda: 99)
    script = Path(stub.words("sbatch")[-1]).read_text()
    assert "#SBATCH --exclude=n1\n" in script
    (root.workers / "mine.8_0.log").write_text("mmkd: setup line failed (exit 1): module load none\n")
    in_queue(stub, root, _7_0="FAILED", _7_1="FAILED", _8_0="FAILED")
    later(clock)
    with pytest.raises(SubmissionRefused, match=r"on every node that was tried \(n1\): .*8_0.log: .*module load none"):
        cluster.slots(lambda: 99)
    assert [line for line in cluster.take_notes() if "node n1 is excluded for 30 min" in line]
    assert cluster.take_notes() == []


def test_what_a_worker_left_that_died_while_no_controller_watched_is_removed(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    dead, alive = start(root, "5_0"), start(root, "6_0")
    for worker in (dead, alive):
        worker.lock.write_text("{}")
    in_queue(stub, root, _6_0="RUNNING")
    cluster = backend(root)
    later(clock)
    cluster.slots(lambda: 99)
    assert (dead.lock.exists(), dead.inbox.exists(), dead.record.exists()) == (False, False, True)
    assert alive.lock.exists()


def test_workers_that_no_other_node_takes_are_submitted_for_all_nodes(
    stub: StubSlurm, root: Root, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = backend(root)
    cluster.slots(lambda: 99)
    in_queue(stub, root, _7_0="FAILED", _7_1="FAILED")
    later(clock)
    stub.complains("sbatch", "sbatch: error: Requested node configuration is not available")
    with pytest.raises(SubmissionRefused, match="Requested node configuration is not available"):
        cluster.slots(lambda: 99)
    assert "--exclude" not in Path(stub.words("sbatch")[-1]).read_text(), "it was tried without"


def test_a_queue_without_room_delays_workers(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    cluster = backend(root)
    stub.complains("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit")
    with pytest.raises(SubmissionDelayed, match="QOSMaxSubmitJobPerUserLimit"):
        cluster.slots(lambda: 99)
    assert cluster.slots(lambda: 99) == 0
    assert stub.calls("sbatch") == 1, "not at once again"


def test_at_the_end_started_workers_close_and_others_are_cancelled(
    stub: StubSlurm, root: Root, clock: list[float]
) -> None:
    in_queue(stub, root, _7_0="RUNNING", _7_1="PENDING")
    worker = start(root, "7_0")
    cluster = backend(root)
    cluster.slots(lambda: 99)
    cluster.release()
    assert worker.close.exists()
    assert stub.words("scancel")[-1] == "7_1"


def test_free_slots_cost_gpu_seconds(stub: StubSlurm, root: Root, clock: list[float]) -> None:
    in_queue(stub, root, _7_0="RUNNING")
    start(root, "7_0", seconds=100.0, busy=300.0)
    cluster = backend(root)
    cluster.slots(lambda: 99)
    assert cluster.idle_gpu_seconds() == 2 * (100.0 - 300.0 / 4)


KILLED = [
    ("0::/job_1/step_0\n", "job_1/step_0/memory.events", "low 0\noom 3\noom_kill 2\n"),
    ("9:memory:/job_1\n3:cpu,cpuacct:/\n", "memory/job_1/memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ("4:cpuset,memory:/job_1\n", "memory/job_1/memory.oom_control", "oom_kill 2\n"),
]


@pytest.mark.parametrize(("group", "file", "text"), KILLED, ids=["v2", "v1", "v1 joined"])
def test_kills_for_memory_are_read_from_either_version_of_control_groups(
    group: str, file: str, text: str, tmp_path: Path
) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text(group)
    assert memory_kills(groups, tmp_path) == 0
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert memory_kills(groups, tmp_path) == 2
