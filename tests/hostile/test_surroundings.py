"""A full disk, a folder that nobody may write, an environment without sense: one line, and nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from refusals import Refusals, run, tree

import mmkd.data.__main__ as data
from analysis.__main__ import main as analyse
from mmkd import export, predict
from mmkd.command import exit_code
from slurm.monitor import main as monitor
from sweeps.launch import main as launch
from sweeps.site_file import default_site_file

CODE = Path(__file__).parents[2]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 64 KiB left; skips where this process may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)  # HDF5 may hold a file that it could not close


def test_a_full_disk_ends_every_command_that_writes_in_a_line_and_leaves_nothing(
    full_disk: Path, refuses: Refusals, small_root: Path, lab: Any, small_data: Any
) -> None:
    student = lab.run(lab.student(training={"epochs": 1})).path
    refuses.of(data.main, "synthetic", full_disk / "s.h5", said="s.h5: No space left on device", code=1)
    model, out = full_disk / "out.pt2", full_disk / "out.csv"
    refuses.of(export.main, "--trial", student, "--out", model, said="No space left|not enough space", code=1)
    (full_disk / "runs").mkdir()
    filling = full_disk / "filling"
    with filling.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    options = ["--trial", student, "--data", small_data[0]]
    refuses.of(predict.main, *options, "--out", out, said="out.csv: No space left on device", code=1)
    table = ["table", "--root", small_root, "--no-cache", "--out", full_disk / "t.txt"]
    refuses.of(analyse, *table, said="t.txt: No space left on device", code=2)
    study = ["--study", "crd_attention", "--cluster", "local", "--device", "cpu", "--data", small_data[0]]
    refuses.of(launch, *study, "--root", full_disk / "runs", said="runs: cannot be written .No space left", code=2)


def test_a_file_system_that_is_read_only_is_named(
    full_disk: Path, refuses: Refusals, small_root: Path, small_data: Any
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    for main, options in (
        (data.main, ["synthetic", full_disk / "s.h5"]),
        (analyse, ["table", "--root", small_root, "--no-cache", "--out", full_disk / "t.txt"]),
        (
            launch,
            ["--study", "crd_attention", "--data", small_data[0], "--cluster", "local", "--root", full_disk / "r"],
        ),
    ):
        refuses.of(main, *options, said=f"{full_disk}/.*[Rr]ead-only file system")


@pytest.mark.parametrize(("number", "code"), [(errno.ENOENT, 2), (errno.EACCES, 2), (errno.ENOSPC, 1), (errno.EIO, 1)])
def test_a_wrong_place_is_the_users_mistake_and_a_failing_disk_is_not(number: int, code: int) -> None:
    assert exit_code(OSError(number, "")) == code


def test_without_a_home_there_is_no_site_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # a container's user may have no entry
    assert not default_site_file().exists()


@pytest.mark.parametrize("columns", ["0", "1", "7", "-3", "many", "99999"])
def test_any_width_of_the_terminal_will_do(
    small_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    import analysis

    monkeypatch.setenv("COLUMNS", columns)
    assert run(monitor, "--root", small_root, "--once") == 0
    assert run(analyse, "table", "--root", small_root, "--no-cache") == 0
    assert capsys.readouterr().err == ""
    if columns.isdecimal() and columns != "0":
        assert "Demo"[: int(columns)] in analysis.to_text(
            analysis.table(analysis.load(small_root), "demo"), int(columns)
        )


def test_a_slurm_that_is_missing_or_misconfigured_is_named(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, small_data: Any
) -> None:
    options = [
        "--study",
        "crd_attention",
        "--data",
        small_data[0],
        "--cluster",
        "slurm",
        "--root",
        refuses.folder / "r",
    ]
    monkeypatch.setenv("PATH", str(refuses.folder))
    missing = r"--cluster slurm: Slurm does not answer \(sinfo: no such command.*\); --cluster local runs the study"
    refuses.of(launch, *options, "--dry-run", said=missing)
    sinfo = refuses.folder / "sinfo"
    sinfo.write_text(
        "#!/bin/sh\necho 'sinfo: error: resolve_ctls_from_dns_srv\nfatal: no \x1b[31mconfig' >&2; exit 1\n"
    )
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refuses.folder}:{os.defpath}")
    refuses.of(launch, *options, "--dry-run", said=r"Slurm does not answer \(.*no \\u001b\[31mconfig")


@pytest.mark.parametrize("visible", ["", "-1", "nonsense", "0,0,0", "999", "GPU-\x1b[2J", ",,,"])
def test_nonsense_in_cuda_visible_devices_is_no_gpu_or_a_name(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, small_data: Any, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    options = ["--study", "crd_attention", "--data", small_data[0], "--cluster", "local", "--dry-run"]
    assert run(launch, *options, "--root", refuses.folder / "r") == 0
    assert "\x1b" not in refuses.capsys.readouterr().out


def test_a_bare_environment_is_enough(small_root: Path, tmp_path: Path) -> None:
    """Real processes, with nothing but a narrow encoding, no home and a temporary folder that is not there."""
    bare = {"LANG": "C", "PYTHONIOENCODING": "ascii", "TMPDIR": str(tmp_path / "gone"), "NO_COLOR": "1", "COLUMNS": "1"}
    before = tree(tmp_path)
    for command in (
        ["-m", "analysis", "table", "--root", small_root, "--no-cache"],
        ["slurm/monitor.py", "--root", small_root, "--once"],
        ["sweeps/launch.py", "--list"],
        ["sweeps/launch.py", "--study", "demo", "--root", small_root, "--status"],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, env=bare, cwd=CODE)
        assert (done.returncode, done.stderr) == (0, b""), command
        assert done.stdout.isascii()
        assert b"\x1b" not in done.stdout
    assert tree(tmp_path) == before


def test_a_mistake_is_one_line_of_a_real_process_too(tmp_path: Path) -> None:
    for command in (
        ["sweeps/launch.py", "--study", "no\nsuch\x1b[2J"],
        ["-m", "mmkd.trial", tmp_path / "gone"],
        ["-m", "analysis", "table", "--root", tmp_path / "gone"],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=CODE)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr
    assert list(tmp_path.iterdir()) == []
