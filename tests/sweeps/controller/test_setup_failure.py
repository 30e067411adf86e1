"""A site's setup line that fails on every node ends the launch in that line's words, and costs no trial a try."""

import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run

from mmkd.attempts import read_attempts
from mmkd.rundir import Root
from slurm.backend import Handle, Job, Report
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.controller.stopping import Halted


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
        failed = Report(False, "error", "Slurm says FAILED (NonZeroExitCode)", node="n1")
        return {h: r if r.alive else failed for h, r in super().poll(handles).items()}


def test_a_setup_line_that_fails_on_every_node_ends_the_launch_with_its_words(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    row = rows_of(study_file, tmp_path, "defaults.trials=1")["no_kd"]
    with pytest.raises(Halted) as halted:
        run(row, Root(tmp_path / "runs"), Cluster())
    attempts = read_attempts(row.directory.trial(0))
    assert {attempt.end for attempt in attempts} == {"not_started"}
    assert len(attempts) <= 3
    assert "on every node that was tried (n1): " in str(halted.value)
    assert "mmkd: setup line failed (exit 127): module load cuda/99" in str(halted.value)
    assert states(row) == [], "nothing is reported: the trial is not to blame"
