"""The lock between real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmkd.lock import FileLock, LockHeld, LockLost, is_held

HOLDER = """
import sys
from pathlib import Path
from mmkd.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""
Start = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.lock"


@pytest.fixture
def start_holder() -> Iterator[Start]:
    """Starts processes that hold a lock until they read a line."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write_holder(path: Path, host: str, age: float) -> None:
    """What a process on `host` left there that renewed its lock `age` seconds ago."""
    path.write_text(json.dumps({"host": host, "pid": 4711, "token": "other", "heartbeat": time.time() - age}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_second_process_is_refused_and_told_who_holds_it(path: Path, start_holder: Start) -> None:
    holder = start_holder(path)
    with pytest.raises(LockHeld) as refused:
        FileLock(path).acquire()
    assert str(refused.value) == f"{path} is held by process {holder.pid} on {socket.gethostname()}"
    assert is_held(path)


def test_a_released_lock_is_free_and_its_file_is_gone(path: Path, start_holder: Start) -> None:
    holder = start_holder(path)
    holder.communicate("\n")
    assert not path.exists()
    assert not is_held(path)
    with FileLock(path) as lock:
        lock.check()


def test_kill_9_frees_the_lock(path: Path, start_holder: Start) -> None:
    holder = start_holder(path)
    holder.kill()
    holder.wait()
    assert path.exists()
    assert not is_held(path)
    with FileLock(path) as lock:
        lock.check()
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_of_many_processes_one_gets_the_lock(path: Path) -> None:
    attempt = (
        "import sys, time; from pathlib import Path; from mmkd.lock import FileLock, LockHeld\n"
        "lock = FileLock(Path(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "try: lock.acquire()\n"
        "except LockHeld: print('refused', flush=True)\n"
        "else: print('held', flush=True)\n"
        "sys.stdin.readline()"
    )
    command = [sys.executable, "-c", attempt, str(path)]
    crowd = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline() for process in crowd if process.stdout is not None]
    for process in crowd:
        process.communicate("\n")
    assert sorted(answers) == ["held\n", "refused\n", "refused\n", "refused\n"]


def test_one_process_cannot_take_a_lock_twice(path: Path) -> None:
    with FileLock(path), pytest.raises(LockHeld, match=f"process {os.getpid()} on "):
        FileLock(path).acquire()


def test_a_lock_that_was_removed_is_noticed(path: Path) -> None:
    with FileLock(path) as lock:
        lock.check()
        path.unlink()
        with pytest.raises(LockLost, match="taken it over"):
            lock.check()


def test_a_lock_that_another_process_took_over_is_noticed_and_left_to_it(path: Path, start_holder: Start) -> None:
    with FileLock(path) as lock:
        path.unlink()  # somebody's forceful hand
        holder = start_holder(path)
        with pytest.raises(LockLost):
            lock.check()
    assert is_held(path)
    assert json.loads(path.read_text())["pid"] == holder.pid


def test_a_lock_that_another_host_took_over_is_noticed_and_left_to_it(path: Path) -> None:
    """Where the file system keeps flock to each host, the file is all that they share."""
    with FileLock(path) as lock:
        content = {"host": "node7", "pid": 1, "token": "theirs", "heartbeat": time.time()}
        path.write_text(json.dumps(content).ljust(256))
        with pytest.raises(LockLost):
            lock.check()
    assert json.loads(path.read_text()) == content


def test_a_lock_that_was_never_taken_is_not_ours(path: Path) -> None:
    with pytest.raises(LockLost):
        FileLock(path).check()


@pytest.mark.parametrize("age", [-7200.0, 0.0, 7200.0])
def test_another_host_is_respected_until_its_heartbeat_has_not_changed_for_a_while(path: Path, age: float) -> None:
    """Its clock may be hours ahead or behind: `age` decides nothing."""
    write_holder(path, "node7", age=age)
    content, lock = path.read_bytes(), FileLock(path, stale=0.3)
    with pytest.raises(LockHeld, match=r"process 4711 on node7, without a heartbeat for 0 s") as held:
        lock.acquire()
    assert not held.value.is_certain, "it may be dead"
    assert path.read_bytes() == content
    write_holder(path, "node7", age=age + 1.0)
    with pytest.raises(LockHeld) as held:
        lock.acquire()
    assert held.value.is_certain
    time.sleep(0.2)
    with pytest.raises(LockHeld):
        lock.acquire()
    time.sleep(0.15)
    with lock:
        assert json.loads(path.read_text())["host"] == socket.gethostname()


def test_a_dead_process_of_this_host_leaves_no_claim_however_fresh(path: Path) -> None:
    write_holder(path, socket.gethostname(), age=0)
    with FileLock(path) as lock:
        lock.check()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"{}"])
def test_a_file_that_says_nothing_is_free(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with FileLock(path) as lock:
        lock.check()


def test_renewing_keeps_the_lock_fresh_and_ours(path: Path) -> None:
    with FileLock(path) as lock:
        os.utime(path, (0, 0))
        before = json.loads(path.read_text())
        lock.renew()
        lock.check()
        after = json.loads(path.read_text())
        assert path.stat().st_mtime > time.time() - 60
        assert after["heartbeat"] > before["heartbeat"]
        assert {**after, "heartbeat": 0} == {**before, "heartbeat": 0}


def test_releasing_twice_does_nothing_to_the_next_holder(path: Path, start_holder: Start) -> None:
    lock = FileLock(path)
    lock.acquire()
    lock.release()
    start_holder(path)
    lock.release()
    assert is_held(path)


def test_asking_whether_it_is_held_makes_no_file_and_takes_nothing(path: Path) -> None:
    assert not is_held(path)
    assert not path.exists()
    lock = FileLock(path)
    lock.acquire()
    assert is_held(path)
    lock.check()
    lock.release()


def test_a_lock_in_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "missing" / "job.lock").acquire()
