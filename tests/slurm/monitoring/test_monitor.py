"""The command: plain, as JSON, live in a terminal, on a real cluster; it never writes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from watched_roots import FakeSqueue, WatchedRoot, conditions, text

from mmkd.lock import FileLock
from mmkd.trial_state import State
from slurm import monitor
from slurm.backend import Job
from slurm.devcluster import DevCluster
from slurm.monitoring.export import to_json
from slurm.monitoring.live import Monitor
from slurm.monitoring.overview import Overview
from slurm.monitoring.watching import Sign
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend

SCRIPT = Path(monitor.__file__)


def tree(folder: Path) -> dict[str, Any]:
    """Every file under a folder, with what is in it and when it was written."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in sorted(folder.rglob("*"))}


def json_keys(value: Any) -> set[str]:
    """All keys in a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for part in value.values() for key in json_keys(part)}
    return {key for part in value for key in json_keys(part)} if isinstance(value, list) else set()


def loads(text: str) -> Any:
    """Strict JSON: no NaN."""
    return json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd="/")


def test_once_is_plain_text_and_nothing_is_written(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.finish(row.trial(0), loss=0.5)
    watched.run(row.trial(1))
    watched.study()
    before = tree(watched.root.path)

    done = call("--root", str(watched.root.path), "--once", "--log", "crd/trials/1")

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "1 of 6 runs done" in done.stdout
    assert "LOG rows/crd-00000000/trials/1" in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    assert tree(watched.root.path) == before


def test_json_is_strict_and_each_of_its_keys_is_documented(watched: WatchedRoot, squeue: FakeSqueue) -> None:
    row = watched.row("crd")
    for number in range(3):
        watched.finish(row.trial(number), loss=0.5)
    watched.run(row.trial(3), backend="slurm", job="7", name="mmkd-0.crd.t3.a1")
    watched.run(row.trial(4))
    watched.end(row.trial(4), "error", message="ValueError")
    watched.study()
    squeue.show("7|RUNNING|None|n3|gpu|1:02|58:58|2026-11-21T12:00:00|mmkd-0.crd.t3.a1")
    with FileLock(row.lock):
        done = call("--root", str(watched.root.path), "--json")

    said = loads(done.stdout)

    assert said["runs"]["finished"] == 3
    assert said["rows"][0]["best"] == {"trial": "t0", "value": 0.5, "accuracy": 0.5}
    (running,) = (trial for trial in said["trials"] if trial["state"] == "running")
    assert (running["directory"], running["epoch"], running["job"]["node"]) == ("rows/crd-00000000/trials/3", 3, "n3")
    documented = set(re.findall(r"`([a-z_]+)`", (SCRIPT.parents[1] / "docs/monitor.md").read_text()))
    assert json_keys(said) - documented == set()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--study", "nix"], "unknown study (--study"),
        (["--log", "nix/trials/1"], "unknown row (--log) 'nix'"),
        (["--root", "/nix"], "--root /nix: no such directory"),
        (["--root", "/dev"], "--root /dev: no studies or rows in it"),
    ],
)
def test_a_users_error_is_one_line(
    watched: WatchedRoot, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    watched.row("crd")
    watched.study()

    code = monitor.main(["--root", str(watched.root.path), *arguments])

    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert complaint in said.err
    assert said.err.count("\n") == 1


class Terminal:
    """A program in a terminal of 80 by 24."""

    def __init__(self, *command: str) -> None:
        self.output, self.code = "", -1
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.execve(command[0], list(command), {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"})

    def press(self, key: str) -> None:
        os.write(self.screen, key.encode())

    def read_until(self, words: str, seconds: float = 20.0) -> None:
        deadline, start = time.monotonic() + seconds, len(self.output)
        while words not in self.output[start:]:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.output[start:]!r}"
            if select.select([self.screen], [], [], 0.2)[0]:
                self.output += os.read(self.screen, 65536).decode("utf-8", "replace")

    def wait(self) -> int:
        self.read_until("\x1b[?1049l")  # the former screen is back
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_in_a_terminal_it_is_live_shows_logs_by_key_and_leaves_no_trace(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.run(row.trial(0))
    row.trial(0).log(1).parent.mkdir()
    row.trial(0).log(1).write_text("said by the trial\n")
    watched.study()
    terminal = Terminal(sys.executable, str(SCRIPT), "--root", str(watched.root.path))

    terminal.read_until("3/10")
    watched.run(row.trial(0), epochs=4)
    terminal.read_until("4/10")
    terminal.press("n")
    terminal.read_until("said by the trial")
    terminal.press("q")

    assert terminal.wait() == 0


def test_on_a_real_cluster_running_waiting_and_lost_jobs_are_told_apart(
    watched: WatchedRoot, cluster: DevCluster, tmp_path: Path
) -> None:
    row = watched.row("crd")
    ids = []
    for number, extra in enumerate(({}, {"begin": "now+1hour"}, {})):
        settings = SlurmSettings(cpus=1, mem="64M", time="10", python="/bin/sleep", extra=extra)
        name = f"mmkd-0.crd-00000000.t{number}.a1"
        job = Job(name, ("/bin/sleep", "300"), row.trial(number).log(1))
        ids.append(SlurmBackend(settings).submit(job).id)
        watched.run(row.trial(number), backend="slurm", job=ids[-1], name=name)
    watched.study()
    cluster.run("scancel", ids[2])

    def wanted(overview: Overview) -> bool:
        return list(conditions(overview).values()) == [State.RUNNING, State.PENDING, Sign.LOST]

    deadline = time.monotonic() + 30
    while not wanted(overview := Monitor(watched.root, None, None).look(wait=True)):
        assert time.monotonic() < deadline, conditions(overview)
        time.sleep(0.3)

    running, waiting, _ = to_json(overview)["trials"]
    assert re.fullmatch(r"n[1-4]", running["job"]["node"])
    assert re.fullmatch(r"(9|10):\d\d", running["job"]["left"])
    assert waiting["job"]["reason"] == "BeginTime"
    assert re.search(r"crd +t1 .* BeginTime +\d\d-\d\d \d\d:\d\d", text(overview))
