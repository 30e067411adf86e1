"""Local trials are forks of one warm worker: same numbers, same signals and exit codes, and nothing is lost with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmkd.attempts import read_attempts
from mmkd.data import keep_split, read_split, reading
from mmkd.files import write_text
from mmkd.lock import is_held
from mmkd.provenance import SOURCE, loaded_code, source_digest
from mmkd.rundir import TrialDir
from slurm.backend import Handle, Job
from slurm.local_backend import LocalBackend, start_process
from sweeps.controller.local_worker import LocalWorker


@contextmanager
def ended_afterwards() -> Iterator[LocalWorker]:
    made = LocalWorker()
    yield made
    if made._worker is not None:
        process = made._worker[1]
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


@pytest.fixture
def worker() -> Iterator[LocalWorker]:
    with ended_afterwards() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalWorker]:
    """One for all tests that leave it running: it takes 3 s of processor time to start."""
    with ended_afterwards() as made:
        yield made


def job(directory: TrialDir, **environment: str) -> Job:
    """The job of a trial's first attempt, as the controller makes it, announced; no other test's job has its name."""
    write_text(directory.attempt, "1\n")
    command = (sys.executable, "-m", "mmkd.trial", str(directory.path), "--attempt", "1")
    name = str(directory.path)[1:].replace("/", "-")
    return Job(f"{name}.a1", command, directory.log(1), {"OMP_NUM_THREADS": "1", **environment})


def finish(backend: LocalBackend, name: str, identifier: str, seconds: float = 120.0) -> Any:
    """The job's last report."""
    handle = Handle(name, identifier)
    deadline = time.monotonic() + seconds
    while (report := backend.poll([handle])[handle]).alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return report


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_of(worker: LocalWorker) -> subprocess.Popen[bytes]:
    assert worker._worker is not None
    return worker._worker[1]


def long_run(lab: Any) -> TrialDir:
    """A trial that takes minutes unless it is asked to end."""
    return lab.place(lab.teacher(training={"epochs": 100_000}))


def test_a_forked_trial_has_the_numbers_of_a_separate_process(lab: Any, numbers_of: Any, shared: LocalWorker) -> None:
    config = lab.student("crd", level="attention_maps", settings={"embedding": 8, "rows": 2})
    forked, alone = lab.place(config, 1), lab.place(config, 2)
    backend = LocalBackend(start=shared)
    first, second = job(forked), job(alone)
    assert finish(backend, first.name, backend.submit(first).id).message == "exit code 0"
    assert process_of(shared).poll() is None
    usual = LocalBackend(start=start_process)
    finish(usual, second.name, usual.submit(second).id)
    assert numbers_of(forked) == numbers_of(alone)
    assert "complete" in forked.log(1).read_text()
    ran = [read_attempts(trial)[0].ran for trial in (forked, alone)]
    assert ran[0].code == ran[1].code == loaded_code()["code"]


def test_the_worker_has_one_thread_and_no_open_data_before_and_after_forks(lab: Any, shared: LocalWorker) -> None:
    backend = LocalBackend(start=shared)
    for number in range(2):
        one = job(lab.place(lab.student(), number))
        assert finish(backend, one.name, backend.submit(one).id).failure == ""
        parent = psutil.Process(process_of(shared).pid)
        assert parent.num_threads() == 1
        assert not [file.path for file in parent.open_files() if file.path.endswith(".h5")]


def test_trials_outlive_the_worker_and_its_successor_takes_the_next(lab: Any, worker: LocalWorker) -> None:
    backend = LocalBackend(start=worker)
    long = long_run(lab)
    running = job(long)
    identifier = backend.submit(running).id
    wait_until(lambda: long.metrics.exists())
    killed = process_of(worker)
    killed.kill()
    killed.wait()
    assert backend.poll([Handle(running.name, identifier)])[Handle(running.name, identifier)].alive
    other = job(lab.place(lab.student(), 7))
    assert finish(backend, other.name, backend.submit(other).id).failure == ""
    assert process_of(worker).pid != killed.pid
    backend.cancel([Handle(running.name, identifier)])
    assert finish(backend, running.name, identifier).failure == "node_fail"  # nobody knows its exit code
    assert read_attempts(long)[0].end == "preempted"  # but it said so itself


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, "preempted"), (signal.SIGUSR2, "timeout")])
def test_a_forked_trial_that_is_asked_to_end_writes_a_checkpoint(
    lab: Any, shared: LocalWorker, number: int, end: str
) -> None:
    backend, long = LocalBackend(start=shared), long_run(lab)
    running = job(long)
    identifier = backend.submit(running).id
    pid = int(identifier.split(":")[1])
    wait_until(lambda: long.metrics.exists())
    assert os.getsid(pid) == pid
    assert f"-m mmkd.trial {long.path} --attempt 1" in " ".join(psutil.Process(pid).cmdline()), "for ps"
    os.kill(pid, number)
    assert finish(backend, running.name, identifier).message == "exit code 75"
    assert read_attempts(long)[0].end == end
    assert long.checkpoint.exists()


def test_a_killed_trial_is_a_lost_node(lab: Any, shared: LocalWorker) -> None:
    backend, long = LocalBackend(start=shared), long_run(lab)
    running = job(long)
    identifier = backend.submit(running).id
    os.kill(int(identifier.split(":")[1]), signal.SIGKILL)
    report = finish(backend, running.name, identifier)
    assert (report.failure, report.message) == ("node_fail", "killed by SIGKILL")


def test_a_worker_whose_code_was_edited_takes_no_trial(lab: Any, worker: LocalWorker, tmp_path: Path) -> None:
    copy = shutil.copytree(SOURCE, tmp_path / "mmkd")
    backend, pids, codes = LocalBackend(start=worker), [], []
    for number in (1, 2):
        trial = lab.place(lab.student(), number)
        one = job(trial, PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
        assert finish(backend, one.name, backend.submit(one).id).failure == ""
        pids.append(process_of(worker).pid)
        codes.append(read_attempts(trial)[0].ran.code)
        assert codes[-1] == source_digest(copy)
        (copy / "edited.py").write_text("# an edit\n")
    assert pids[0] != pids[1]
    assert codes[0] != codes[1]


def test_a_damaged_assignment_is_an_error_of_its_own(lab: Any, shared: LocalWorker) -> None:
    backend = LocalBackend(start=shared)
    first = job(lab.place(lab.student(), 1))
    identifier = backend.submit(first).id
    assert shared._worker is not None
    directory, process = shared._worker
    (directory.inbox / "torn.json").write_text('{"arguments": [')
    wait_until(lambda: not (directory.inbox / "torn.json").exists())
    assert finish(backend, first.name, identifier).failure == ""
    assert "torn.json" in directory.log.read_text()
    other = job(lab.place(lab.student(), 7))
    assert finish(backend, other.name, backend.submit(other).id).failure == ""
    assert process_of(shared) is process


def test_a_stopped_worker_is_replaced_and_its_trials_live_on(
    lab: Any, worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.local_worker.STOPPED_SECONDS", 0.2)
    backend, long = LocalBackend(start=worker), long_run(lab)
    running = job(long)
    identifier = backend.submit(running).id
    stopped = process_of(worker)
    stopped.send_signal(signal.SIGSTOP)
    other = job(lab.place(lab.student(), 7))
    assert finish(backend, other.name, backend.submit(other).id).failure == ""
    assert process_of(worker) is not stopped
    assert stopped.poll() == -signal.SIGKILL
    assert backend.poll([Handle(running.name, identifier)])[Handle(running.name, identifier)].alive
    backend.cancel([Handle(running.name, identifier)])
    finish(backend, running.name, identifier)


def test_the_end_of_a_stopped_workers_trial_is_seen(
    lab: Any, worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.local_worker.STOPPED_SECONDS", 0.5)
    backend, directory = LocalBackend(start=worker), lab.place(lab.student())
    one = job(directory)
    identifier = backend.submit(one).id
    process_of(worker).send_signal(signal.SIGSTOP)
    assert finish(backend, one.name, identifier).failure == "node_fail"  # nobody knows its exit code
    assert directory.result.exists()
    process_of(worker).send_signal(signal.SIGCONT)


def test_a_directory_has_one_worker(lab: Any, shared: LocalWorker) -> None:
    backend = LocalBackend(start=shared)
    one = job(lab.place(lab.student()))
    assert finish(backend, one.name, backend.submit(one).id).failure == ""
    command = process_of(shared).args
    second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # type: ignore[call-overload]
    assert second.returncode == 2
    assert "a directory has one worker" in second.stderr
    other = job(lab.place(lab.student(), 7))
    assert finish(backend, other.name, backend.submit(other).id).failure == ""


def test_where_no_worker_can_work_a_trial_is_a_process(
    lab: Any, worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.local_worker.WORKER", ("false",))
    backend, directory = LocalBackend(start=worker), lab.place(lab.student())
    one = job(directory)
    assert finish(backend, one.name, backend.submit(one).id).failure == ""
    assert directory.result.exists()


def test_the_worker_ends_with_its_controller_and_leaves_its_trials_running(lab: Any, tmp_path: Path) -> None:
    long = long_run(lab)
    running = job(long)
    script = (
        "import sys, os, signal; from sweeps.controller.local_worker import LocalWorker; "
        "from slurm.backend import Job; from pathlib import Path; "
        f"worker = LocalWorker(); process = worker(Job('a', {running.command!r}, Path({str(running.log)!r})), "
        "{**os.environ}); print(process.pid, worker._worker[1].pid, worker._worker[0].path, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    long.log(1).parent.mkdir(parents=True)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    trial, parent, directory = said.split()
    wait_until(lambda: is_held(long.lock))
    assert psutil.pid_exists(int(trial))
    os.kill(int(trial), signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(int(parent)) or psutil.Process(int(parent)).status() == "zombie")
    assert not Path(directory).exists()
    assert read_attempts(long)[0].end == "preempted"


def test_what_is_kept_is_what_is_read(small_data: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = small_data
    monkeypatch.setattr(reading, "_kept", {})
    fresh = read_split(path, "valid", ["video", "audio"])
    keep_split(path, "valid", ["audio"])
    keep_split(path, "valid", ["video", "audio"])
    kept = read_split(path, "valid", ["video", "audio"])
    assert {m: a.tobytes() for m, a in kept.arrays.items()} == {m: a.tobytes() for m, a in fresh.arrays.items()}
    assert kept.arrays["video"] is read_split(path, "valid", ["video"]).arrays["video"]
    raw = read_split(path, "valid", ["video"], standardise=False)
    assert raw.arrays["video"].tobytes() != kept.arrays["video"].tobytes()
