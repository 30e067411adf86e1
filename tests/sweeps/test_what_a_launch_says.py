"""The words of a launch: numbers agree with their nouns, examples are called so, and advice fits what happened."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_cluster import FakeCluster
from fakes import FakeBackend
from launched import after, launched, planned
from rich.console import Console

from mmkd.rundir import Root
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.actions.dry_run import example_job, say_next, show_plan, show_script
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Interrupted, Stop
from sweeps.study_file import load_study


@pytest.mark.parametrize("succeeded", [True, False])
def test_the_real_thing_is_recommended_after_a_success_on_synthetic_data_alone(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], succeeded: bool
) -> None:
    synthetic = load_study(study_file, [("data", "synthetic:small")])
    say_next(synthetic, Root(tmp_path), "tiny", succeeded=succeeded)
    said = capsys.readouterr().out
    assert ("This was synthetic data" in said) is succeeded
    assert f"Results saved to {tmp_path}" in said
    say_next(load_study(study_file, []), Root(tmp_path), "tiny", succeeded=True)
    assert "synthetic" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "slots", "expected"),
    [
        (Stop.WITHOUT_JOBS, 1, "stopping; 1 job left running, to be found by the next launch"),
        (Stop.WITHOUT_JOBS, 2, "stopping; 2 jobs left running, to be found by the next launch"),
        (Stop.WITH_JOBS, 1, "stopping: waiting for checkpoints of 1 job"),
        (Stop.WITH_JOBS, 2, "stopping: waiting for checkpoints of 2 jobs"),
    ],
)
def test_a_controller_that_stops_counts_its_jobs(
    study_file: Path, tmp_path: Path, how: Stop, slots: int, expected: str
) -> None:
    said = io.StringIO()
    root = Root(tmp_path / "runs")
    work = RowWork(planned(study_file, tmp_path)[0], slots, study_file)
    with Reporter(Console(file=said, width=200)) as reporter:
        controller = Controller([work], root, FakeBackend(delay=50), slots, reporter, after(2, how), interval=0.001)
        with pytest.raises(Interrupted):
            controller.run()
    work.close()
    assert expected in said.getvalue()


def test_a_dry_runs_script_is_called_an_example(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    row = planned(study_file, tmp_path)[0]
    made = SimpleNamespace(backend=SlurmBackend(SlurmSettings()))
    show_script(made, example_job(row, Root(tmp_path / "runs"), {}))  # type: ignore[arg-type]  # all that it reads
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("script    example: the first trial; other trials differ in name and directory")


def test_a_launch_on_this_machine_warns_of_jobs_that_an_earlier_one_left_on_slurm(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = planned(study_file, tmp_path)

    def plan_on(backend: str) -> str:
        capsys.readouterr()
        show_plan(load_study(study_file, []), rows, Root(tmp_path / "runs"), "small", backend, 2)
        return capsys.readouterr().out

    assert "warning" not in plan_on("local"), "nothing was ever sent"
    launched(study_file, tmp_path, backend=FakeCluster(delay=50), stop=after(3, Stop.WITHOUT_JOBS))
    assert "of an earlier launch may still be pending or running on Slurm" in plan_on("local")
    assert "use --cluster slurm to query Slurm" in plan_on("local")
    assert "warning" not in plan_on("slurm")
    launched(study_file, tmp_path, backend=FakeCluster())
    assert "warning" not in plan_on("local"), "all have ended"


def test_a_plan_says_how_much_exists_beyond_the_budget(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(study_file, tmp_path, "defaults.trials=6", "defaults.seeds=3")
    root, study = Root(tmp_path / "runs"), load_study(study_file, [])
    capsys.readouterr()
    show_plan(study, planned(study_file, tmp_path, "defaults.trials=2", "defaults.seeds=1"), root, "small", "local", 2)
    said = capsys.readouterr().out
    assert said.count("6 tuning trials exist, more than the 2 asked for: all are kept, and all count") == 2
    assert said.count("final runs on 3 seeds exist: all are kept, and the table uses seeds 1 to 1") == 2
    show_plan(study, planned(study_file, tmp_path, "defaults.trials=6", "defaults.seeds=3"), root, "small", "local", 2)
    assert "exist" not in capsys.readouterr().out
