"""A site's setup line that fails on the nodes fails each trial for good, after two attempts, in that line's words."""

import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
from controlled import rows_of
from fake_cluster import FakeCluster, run

from mmkd.attempts import read_attempts
from mmkd.rundir import Root
from slurm.backend import Handle, Job, Report
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend


class Cluster(FakeCluster):
    """Runs each job's very script in bash; where that fails, says what Slurm says then."""

    scripts = SlurmSettings(setup=("module load cuda/99",), gpus="0")

    def _end(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("w") as log:
            script = SlurmBackend(self.scripts).script(job)
            done = subprocess.run(["bash", "-c", script], stdout=log, stderr=log)
        assert done.returncode == 1

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        failed = Report(False, "error", "Slurm says FAILED (NonZeroExitCode)")
        return {h: r if r.alive else failed for h, r in super().poll(handles).items()}


def test_a_setup_line_that_fails_is_an_error_and_its_words_are_the_reason(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    row = rows_of(study_file, tmp_path, "defaults.trials=1")["no_kd"]
    work, said = run(row, Root(tmp_path / "runs"), Cluster())
    attempts = read_attempts(row.directory.trial(0))
    assert [attempt.end for attempt in attempts] == ["error", "error"]
    assert "failed (no retries left): error in 2 attempts" in said
    assert "mmkd: setup line failed (exit 127): module load cuda/99" in said
    assert work.failed
