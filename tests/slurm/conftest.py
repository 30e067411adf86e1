"""A real Slurm for tests: one per worker, up when the first test asks for it, down when the worker ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from stub_slurm import StubSlurm, install

from mmkd.lock import FileLock, LockHeld
from slurm.devcluster import DevCluster, Options, attach, can_limit_by_cgroup, up
from slurm.devcluster.packages import can_install, missing_packages

REAL_SLURM = Path("/etc/slurm/slurm.conf")


def why_not() -> str:
    """Why no cluster can be brought up here; empty where one can."""
    if os.geteuid() != 0:
        return "a real Slurm needs root"
    if REAL_SLURM.exists():
        return f"this machine has a Slurm of its own: {REAL_SLURM}"
    missing = missing_packages(accounting=True)
    if missing and not can_install():
        return f"not Debian or Ubuntu, and missing: {', '.join(missing)}"
    return ""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubSlurm:
    return install(tmp_path / "stubs", monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time stands still; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("slurm.slurm_backend.time.monotonic", lambda: now[0])
    return now


@pytest.fixture(scope="session")
def cluster_folder() -> Iterator[Path]:
    """A folder that no other worker or test run uses; what a killed run left there is taken down by `fresh`."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ExitStack() as stack:
        folder = next(folder for folder in _folders() if _take(folder, stack))
        with _removed_at_the_end(folder):
            yield folder


@pytest.fixture(scope="session")
def running_cluster(cluster_folder: Path) -> DevCluster:
    """The worker's cluster, in whatever order the last test left it: `cluster` is what tests ask for."""
    options = Options(nodes=4, gpus_per_node=2, cpus_per_node=4, cgroup=can_limit_by_cgroup())
    return up(options, cluster_folder, fresh=True)


@pytest.fixture
def cluster(running_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> DevCluster:
    """A cluster in good order: no jobs, 4 idle nodes of 2 GPUs and 4 CPUs; Slurm's commands find it."""
    running_cluster.restore()
    for name, value in running_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return running_cluster


@pytest.fixture
def second_folder(cluster_folder: Path) -> Iterator[Path]:
    """A folder for another cluster beside the worker's, taken down after the test."""
    with _removed_at_the_end(cluster_folder.with_name(f"{cluster_folder.name}-second")) as folder:
        yield folder


@contextmanager
def _removed_at_the_end(folder: Path) -> Iterator[Path]:
    try:
        yield folder
    finally:
        if (folder / "cluster.json").exists():
            attach(folder).down()
        shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    for number in range(100):
        yield Path(tempfile.gettempdir()) / f"mmkd-test-cluster-{os.getuid()}-{number}"


def _take(folder: Path, stack: ExitStack) -> bool:
    try:
        stack.enter_context(FileLock(folder.with_suffix(".lock")))
    except LockHeld:
        return False
    return True
