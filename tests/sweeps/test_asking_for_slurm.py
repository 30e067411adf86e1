"""Where a launch runs: whoever asks for Slurm gets it or is told why not, and never this machine instead."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmkd.errors import UserError
from mmkd.rundir import Root
from slurm.accounting import NoAnswer
from slurm.backend import SubmissionDelayed
from sweeps.actions import cancel as cancelling
from sweeps.actions import detach as detaching
from sweeps.launch import main
from sweeps.launched_study import RecordedStudy
from sweeps.options import make_parser
from sweeps.resolve import choose_cluster
from sweeps.site_file import Site

DOWN = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
UNCONFIGURED = "sinfo: fatal: Could not establish a configuration source"


@pytest.fixture
def sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a sinfo (and an sbatch) on PATH that fails with these words, answers (""), or is not there (None)."""

    def put(words: str | None) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", str(folder))
        for name in ("sinfo", "sbatch") if words is not None else ():
            (folder / name).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit {1 if words else 0}\n")
            (folder / name).chmod(0o755)

    return put


@pytest.mark.parametrize(
    ("words", "cause", "code"),
    [
        (None, "sinfo: no such command on this machine; is this a node of a Slurm cluster?", 2),
        (UNCONFIGURED, UNCONFIGURED, 2),
        (DOWN, DOWN, 1),
    ],
)
@pytest.mark.parametrize(
    "asking", [["--slurm.partition", "gpu"], ["--slurm.setup", "module load x"], ["--detach"], ["--cluster", "slurm"]]
)
def test_who_asks_for_slurm_where_it_does_not_answer_is_told_why_and_nothing_runs_here(
    sinfo, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: str | None, cause: str, code: int, asking: list[str],
) -> None:  # fmt: skip
    sinfo(words)
    assert main(["--study", str(study_file), "--root", str(tmp_path / "runs"), *asking, "--dry-run"]) == code
    said = capsys.readouterr()
    option = " ".join(asking) if asking[0] == "--cluster" else asking[0]
    assert said.err.startswith(
        f"error: {option}: Slurm does not answer ({cause}); --cluster local runs the study on this machine"
    )
    assert said.err.count("\n") == 1
    assert "try again later" not in said.err
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "arguments", "expected"),
    [
        (None, [], "local"),
        (UNCONFIGURED, [], "local"),
        ("", [], "slurm"),
        ("", ["--slurm.time", "60"], "slurm"),
        (None, ["--slurm.time", "60", "--cluster", "local"], "local"),
        (DOWN, ["--cluster", "debug"], "debug"),
    ],
)
def test_without_such_an_option_slurm_is_taken_where_it_answers(
    sinfo, words: str | None, arguments: list[str], expected: str
) -> None:
    sinfo(words)
    assert choose_cluster(make_parser().parse_args(["--study", "kd", *arguments])) == expected


def test_a_cluster_whose_scheduler_is_down_is_no_reason_to_train_on_its_login_node(sinfo) -> None:
    sinfo(DOWN)
    with pytest.raises(ConnectionError, match=r"^Slurm does not answer \(slurm_load_partitions: Unable to contact"):
        choose_cluster(make_parser().parse_args(["--study", "kd", "--dry-run"]))


def test_a_launch_waits_for_a_scheduler_that_is_down_and_says_so_once(
    sinfo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sinfo(DOWN)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        if seconds < 1:
            return  # subprocess waits so for the end of sinfo
        waits.append(seconds)
        if len(waits) == 3:
            sinfo("")

    monkeypatch.setattr("sweeps.resolve.time.sleep", wait)
    assert choose_cluster(make_parser().parse_args(["--study", "kd", "--slurm.cpus", "2"])) == "slurm"
    assert waits == [10.0] * 3
    assert capsys.readouterr().out.count("waiting until Slurm answers (slurm_load_partitions: Unable to contact") == 1


def test_slurm_in_a_site_file_alone_does_not_ask_for_it(
    sinfo, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sinfo(None)
    (tmp_path / "site.toml").write_text('[slurm]\npartition = "gpu"\n')
    where = ["--root", str(tmp_path / "runs"), "--site", str(tmp_path / "site.toml")]
    assert main(["--study", str(study_file), *where, "--device", "cpu", "--dry-run"]) == 0
    assert "runs on   local" in capsys.readouterr().out


@pytest.mark.parametrize(("of_no_cluster", "kind"), [(True, UserError), (False, ConnectionError)])
def test_a_scheduler_that_is_down_when_a_study_is_detached_or_cancelled_went_wrong_at_run_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_no_cluster: bool, kind: type[Exception]
) -> None:
    def silent(*_: object) -> list[object]:
        raise NoAnswer(DOWN, of_no_cluster=of_no_cluster)

    for module in (detaching, cancelling):
        monkeypatch.setattr(module, "controller_jobs", silent)
    made = SimpleNamespace(root=Root(tmp_path), name="tiny", rows=[])
    with pytest.raises(kind, match=r"--detach: Slurm does not answer \(slurm_load_partitions"):
        detaching.refuse_second(made)
    with pytest.raises(kind, match=r"--cancel: Slurm does not answer \(slurm_load_partitions"):
        cancelling.cancel(RecordedStudy("tiny", "", Root(tmp_path), ()), Site())


def test_a_controllers_job_for_which_the_queue_has_no_room_now_went_wrong_at_run_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def submit(self, job: object) -> str:
            raise SubmissionDelayed("QOSMaxSubmitJobPerUserLimit", certain=True)

    monkeypatch.setattr(detaching, "slurm_backend", lambda settings: Full())
    recorded: list[float | None] = []
    facts = {"root": Root(tmp_path), "name": "tiny", "rows": [], "site": Site(), "code": None}
    made = SimpleNamespace(**facts, record=recorded.append)
    options = make_parser().parse_args(["--study", "kd", "--detach"])
    options.arguments = ["--study", "kd", "--detach"]
    with pytest.raises(ConnectionError, match=r"^--detach: Slurm says QOSMaxSubmitJobPerUserLimit$"):
        detaching.detach(made, options)
    assert recorded == [None], "--status finds the study where it is unsure whether there is a job"
