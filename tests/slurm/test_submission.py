"""Submission through submitit, against an sbatch that says what Slurm's was seen to say; and the script itself."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stub_slurm import StubSlurm
from submitit import Job as SubmititJob
from submitit import SlurmExecutor
from submitit.core.utils import CommandFunction

from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from slurm.submission import CommandExecutor

HOSTILE = "a b'c\"d$HOME`id`;|&>*\\ é\tf"


def backend(**settings: object) -> SlurmBackend:
    return SlurmBackend(SlurmSettings.model_validate(settings))


def job(tmp_path: Path, **changes: object) -> Job:
    command = ("python", "-m", "mmkd.trial", str(tmp_path / "trial"), "--attempt", "1")
    return Job("mmkd-1.row.t0.a1", command, tmp_path / "log" / "1.txt", **changes)  # type: ignore[arg-type]


def test_submitit_writes_the_script_runs_sbatch_and_makes_the_job(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    run = CommandFunction.__call__
    monkeypatch.setattr(CommandFunction, "__call__", lambda self: ran.append(self.command) or run(self))
    stub.answers("sbatch", "4711")
    executor = CommandExecutor(job(tmp_path), SlurmSettings())
    assert isinstance(executor, SlurmExecutor)
    made = executor.submit_command()
    assert isinstance(made, SubmititJob)
    assert made.job_id == "4711"
    assert ran == [["sbatch", "--parsable", str(tmp_path / "log" / "1.sbatch")]]
    assert backend().submit(job(tmp_path)).id == "4711"
    assert len(ran) == stub.calls("sbatch") == 2, "nobody else calls sbatch"


def test_a_script_runs_the_trial_itself_and_needs_no_pickle(stub: StubSlurm, tmp_path: Path) -> None:
    """So that a job starts though its controller was killed as soon as Slurm had it."""
    script = backend().script(job(tmp_path))
    assert "-m mmkd.trial" in script
    assert "submitit.core" not in script
    assert ".pkl" not in script


@pytest.mark.parametrize("folder", ["plain", "100%j it's", "%A/%a/%t"])
def test_a_submission_leaves_its_script_and_nothing_else(stub: StubSlurm, tmp_path: Path, folder: str) -> None:
    stub.answers("sbatch", "4711")
    root = tmp_path / folder
    backend().submit(job(root))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "stubs" not in path.parts]
    assert files == [root / "log" / "1.sbatch"]
    assert not files[0].is_symlink()
    assert not list(tmp_path.rglob("*4711*"))


def test_the_environment_is_as_before_and_sbatchs_errors_are_not_printed(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    before = dict(os.environ)
    stub.complains("sbatch", "sbatch: error: invalid partition specified: gpux")
    with pytest.raises(SubmissionRefused):
        backend().submit(job(tmp_path))
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", ["", "Welcome to the cluster"])
def test_an_answer_without_a_jobs_id_leaves_a_doubt(stub: StubSlurm, tmp_path: Path, answer: str) -> None:
    stub.answers("sbatch", answer)
    with pytest.raises(SubmissionDelayed, match="sbatch printed no job id") as delay:
        backend().submit(job(tmp_path))
    assert not delay.value.certain


def test_an_answer_that_cannot_be_read_leaves_a_doubt(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stub.folder / "sbatch.answer").write_bytes(b"\xff\xfe\n")
    with pytest.raises(SubmissionDelayed, match="nothing legible") as delay:
        backend().submit(job(tmp_path))
    assert not delay.value.certain


def test_an_sbatch_that_does_not_answer_is_killed_and_leaves_a_doubt(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stub.folder / "sbatch").write_text("#!/bin/sh\nsleep 60\necho 4711\n")
    monkeypatch.setattr("slurm.submission.SBATCH_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(SubmissionDelayed, match="sbatch was killed") as delay:
        backend().submit(job(tmp_path))
    assert not delay.value.certain
    assert time.monotonic() - began < 20


def test_a_machine_without_sbatch_is_refused(stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stub.folder / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(stub.folder))
    with pytest.raises(SubmissionRefused, match="sbatch: no such command; run on a login node"):
        backend().submit(job(tmp_path))


def test_a_site_may_greet_before_the_jobs_id(stub: StubSlurm, tmp_path: Path) -> None:
    stub.answers("sbatch", "Welcome to job 12 of many", "4711;cluster")
    assert backend().submit(job(tmp_path)).id == "4711"


def test_a_submission_gives_the_jobs_id(stub: StubSlurm, tmp_path: Path) -> None:
    stub.answers("sbatch", "4711;cluster")
    assert backend().submit(job(tmp_path)).id == "4711"
    assert (tmp_path / "log" / "1.sbatch").read_text() == backend().script(job(tmp_path))


FULL = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
FULL += "accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("said", "certain"),
    [
        (FULL, True),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: …", True),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", False),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", False),
        ("sbatch: error: Slurm temporarily unable to accept job\nsbatch: error: Socket timed out on send/recv", False),
    ],
)
def test_what_may_go_better_later_is_delayed(said: str, certain: bool, stub: StubSlurm, tmp_path: Path) -> None:
    stub.complains("sbatch", said)
    with pytest.raises(SubmissionDelayed) as delay:
        backend().submit(job(tmp_path))
    assert delay.value.certain is certain
    assert "sbatch: error" not in str(delay.value)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("invalid partition specified: gpux", "--slurm.partition"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "--slurm.account"),
        ("Batch job submission failed: Invalid qos specification", "--slurm.qos"),
        (f"QOSMaxWallDurationPerJobLimit\n{FULL.splitlines()[1]}", "ask for less"),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            "--slurm.time",
        ),
        ("Memory specification can not be satisfied", "--slurm.mem"),
        ("Batch job submission failed: Requested node configuration is not available", "--slurm.gpus"),
        ("Invalid generic resource (gres) specification", "--slurm.gpus"),
        ("Batch job submission failed: Invalid feature specification", "--slurm.constraint"),
        ("Batch job submission failed: Invalid node name specified", "--slurm.nodelist"),
        ("unrecognized option '--foo'", "--slurm.extra"),
    ],
)
def test_what_slurm_will_never_take_is_refused_in_its_words_with_what_to_change(
    said: str, hint: str, stub: StubSlurm, tmp_path: Path
) -> None:
    stub.complains("sbatch", f"sbatch: error: {said}")
    with pytest.raises(SubmissionRefused) as refusal:
        backend().submit(job(tmp_path))
    words, _, advice = str(refusal.value).rpartition("; ")
    assert said.splitlines()[0].removeprefix("sbatch: error: ") in words
    assert hint in advice
    assert "\n" not in str(refusal.value)


def test_where_no_other_node_would_do_the_failed_one_is_taken(stub: StubSlurm, tmp_path: Path) -> None:
    stub.complains("sbatch", "sbatch: error: Requested node configuration is not available")
    with pytest.raises(SubmissionRefused):
        backend().submit(job(tmp_path, avoid=("n1",), memory=2.0))
    assert stub.calls("sbatch") == 2
    script = (tmp_path / "log" / "1.sbatch").read_text()
    assert "--exclude" not in script
    assert "--mem=32768M" in script


def test_sbatch_gets_neither_a_surrounding_jobs_variables_nor_defaults_that_would_win_over_the_script(
    stub: StubSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_CPU": "9", "SLURM_CONF": "/c", "SBATCH_TIMELIMIT": "1"}
    for name, value in {**variables, "SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "cpu", "EDITOR": "ed"}.items():
        monkeypatch.setenv(name, value)
    stub.answers("sbatch", "4711")
    backend(partition="gpu").submit(job(tmp_path))
    seen = {name for name in stub.environment("sbatch") if name.startswith(("SLURM_", "SBATCH_", "EDITOR"))}
    assert seen == {"SLURM_CONF", "SBATCH_ACCOUNT", "EDITOR"}


# --- the script


def options(script: str) -> dict[str, str]:
    """What a script asks of sbatch, by the long option's name."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def test_a_script_asks_for_what_the_site_says_and_never_requeues(stub: StubSlurm, tmp_path: Path) -> None:
    settings = {"partition": "gpu", "account": "lab", "qos": "long", "gpus": "gpu:volta:1", "cpus": 6, "mem": "24G"}
    more = {
        "time": "8:00:00",
        "grace": 120,
        "constraint": "a100|h100",
        "exclude": "n9",
        "extra": {"reservation": "x y"},
    }
    asked = options(backend(**settings, **more).script(job(tmp_path, avoid=("n1", "n2"), memory=2.0)))
    expected = {
        "partition": "gpu", "account": "lab", "qos": "long", "gres": "gpu:volta:1", "cpus-per-task": "6",
        "mem": "49152M", "time": "8:00:00", "signal": "USR2@120", "constraint": "a100|h100", "exclude": "n9,n1,n2",
        "reservation": "x y", "no-requeue": "", "job-name": "mmkd-1.row.t0.a1",
    }  # fmt: skip
    assert {name: asked.get(name) for name in expected} == expected
    assert "wckey" not in asked
    assert "requeue" not in asked


def test_an_option_of_sbatch_without_a_value_is_written_with_nothing_after_the_equals_sign(
    stub: StubSlurm, tmp_path: Path
) -> None:
    script = backend(extra={"exclusive": "", "contiguous": "", "switches": "1"}).script(job(tmp_path))
    lines = [
        line for line in script.splitlines() if line.startswith(("#SBATCH --exc", "#SBATCH --con", "#SBATCH --sw"))
    ]
    assert lines == ["#SBATCH --contiguous", "#SBATCH --exclusive", "#SBATCH --switches=1"]


def test_a_controllers_job_may_be_requeued_and_waits_for_its_predecessor(stub: StubSlurm, tmp_path: Path) -> None:
    asked = options(backend().script(job(tmp_path, after="12", requeue=True)))
    assert (asked["dependency"], asked["requeue"], asked.get("no-requeue")) == ("afterany:12", "", None)


def test_the_trial_gets_its_words_and_variables_whatever_stands_in_them(stub: StubSlurm, tmp_path: Path) -> None:
    place = tmp_path / HOSTILE.replace("\t", "").replace("\\", "")  # neither is taken in a path
    variables = {"MINE": HOSTILE, "LINES": "one\ntwo"}
    cluster = backend(setup=["export FROM_SETUP='a b'"], prefix=f"env VIA={shlex.quote('a b')}", python=sys.executable)
    script = cluster.script(job(place, environment=variables))
    path = tmp_path / "job.sh"
    path.write_text(script)
    subprocess.run(["bash", str(path)], check=True)
    trial = [sys.executable, "-m", "mmkd.trial", str(place / "trial"), "--attempt", "1"]
    assert stub.words("srun") == ["--export=ALL", "--unbuffered", "--cpus-per-task=4", "env", "VIA=a b", *trial]
    seen = stub.environment("srun")
    assert {name: seen[name] for name in ("MINE", "LINES", "FROM_SETUP")} == {**variables, "FROM_SETUP": "a b"}


def test_slurm_does_not_take_a_percent_sign_of_the_logs_path_for_its_own(stub: StubSlurm, tmp_path: Path) -> None:
    asked = options(backend().script(job(tmp_path / "100%j it's")))
    assert asked["output"] == asked["error"] == str(tmp_path / "100%%j it's" / "log" / "1.txt")
