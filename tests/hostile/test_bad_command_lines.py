"""A command line that asks for the impossible is answered in one line with exit code 2, and nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusals import Refusals, run, tree

import mmkd.data.__main__ as data
import slurm.devcluster.__main__ as devcluster
from analysis.__main__ import main as analyse
from mmkd import export, predict, trial
from slurm.monitor import main as monitor
from sweeps.launch import main as launch

LAUNCH: dict[str, tuple[list[str], str]] = {
    "nothing to do": ([], "name a --study; --list shows them"),
    "an unknown option": (["--study", "kd", "--treasure"], "unrecognized arguments: --treasure"),
    "an abbreviation": (["--stud", "kd"], "unrecognized arguments: --stud"),
    "an option of two lines": (["--study", "kd", "--a\nb\x1b[2J"], r"--a; b\\u001b\[2J"),
    "no trials": (["--study", "crd_attention", "--trials", "0"], "--trials: '0' is not a whole number from 1"),
    "trials below 0": (["--study", "crd_attention", "--trials=-3"], "--trials: '-3' is not a whole number"),
    "trials in words": (["--study", "crd_attention", "--trials", "many"], "--trials: 'many' is not a whole number"),
    "trials of 400 digits": (["--study", "crd_attention", "--trials", "9" * 400], "--trials: '999"),
    "more seeds than anybody has": (["--study", "crd_attention", "--seeds", "99999999"], "defaults.seeds: .*10000"),
    "no GPU-hours": (
        ["--study", "crd_attention", "--max-gpu-hours", "0"],
        "--max-gpu-hours: '0' is not a number above",
    ),
    "NaN GPU-hours": (["--study", "crd_attention", "--max-gpu-hours", "nan"], "--max-gpu-hours: 'nan' is not a number"),
    "GPU-hours in words": (["--study", "crd_attention", "--max-gpu-hours", "few"], "'few' is not a number above 0"),
    "an unknown sampler": (["--study", "crd_attention", "--sampler", "luck"], "--sampler: invalid choice: 'luck'"),
    "an unknown cluster": (["--study", "crd_attention", "--cluster", "moon"], "--cluster: invalid choice: 'moon'"),
    "--set without =": (["--study", "crd_attention", "--set", "trials"], "--set 'trials': write KEY=VALUE"),
    "--set without a key": (["--study", "crd_attention", "--set", "=3"], "--set '=3': write KEY=VALUE"),
    "--set under a value": (["--study", "crd_attention", "--set", "title.x=3"], "--set title.x: 'title' is a value"),
    "--set of an unknown row": (["--study", "crd_attention", "--set", "rows.x.trials=3"], "unknown row 'x'"),
    "--set of an unknown key": (
        ["--study", "crd_attention", "--set", "traning.epochs=3"],
        "--set traning.epochs: no such key",
    ),
    "--set of lists in lists": (
        ["--study", "crd_attention", "--set", "title=" + "[" * 9999],
        "title: .*one line of at most",
    ),
    "an unknown option of Slurm": (["--study", "crd_attention", "--slurm.speed", "9"], "unrecognized arguments"),
    "no cores": (["--study", "crd_attention", "--slurm.cpus", "0"], "slurm.cpus: .*1"),
    "cores in words": (["--study", "crd_attention", "--slurm.cpus", "two"], "slurm.cpus: .*'two'"),
    "--slurm.extra without =": (["--study", "crd_attention", "--slurm.extra", "lab"], "--slurm.extra lab: write NAME="),
    "an account of two lines": (
        ["--study", "crd_attention", "--slurm.account", "a\nb"],
        "slurm.account: .*single line",
    ),
    "data that are not there": (["--study", "crd_attention", "--data", "gone.h5"], r"gone\.h5: no such data file"),
    "an unknown modality": (["--study", "crd_attention", "--primary", "smell"], "no modality 'smell': give --primary"),
    "a table's name that is a path": (["--study", "crd_attention", "--as", "../x"], "study '../x': use 1 to 80"),
    "a table's name of 300 letters": (["--study", "crd_attention", "--as", "x" * 300], "study 'xxx.*use 1 to 80"),
    "a table's name for a shell": (["--study", "crd_attention", "--as", "$(x)`y`"], "use 1 to 80"),
    "--probe alone": (["--study", "crd_attention", "--probe"], "--probe: allowed only with --dry-run"),
    "--detach without Slurm": (["--study", "crd_attention", "--detach"], "--detach: needs Slurm"),
    "a snapshot of this process": (["--study", "crd_attention", "--snapshot", "--cluster", "debug"], "--snapshot: "),
    "CUDA where there is none": (["--study", "crd_attention", "--device", "cuda"], "--device cuda: nvidia-smi shows"),
    "two actions": (["--study", "crd_attention", "--status", "--cancel"], "--cancel: not allowed with .*--status"),
    "the status of nothing": (["--study", "crd_attention", "--status"], "no study 'crd_attention' was launched there"),
    "to cancel nothing": (["--study", "crd_attention", "--cancel"], "no study 'crd_attention' was launched there"),
    "to clean nothing": (["--study", "crd_attention", "--clean"], "no study 'crd_attention' was launched there"),
    "a dry run of the status": (
        ["--study", "crd_attention", "--status", "--dry-run"],
        "--dry-run: allowed only with a launch",
    ),
}


@pytest.mark.parametrize("case", LAUNCH)
def test_launch_refuses(refuses: Refusals, monkeypatch: pytest.MonkeyPatch, case: str, small_data: Any) -> None:
    monkeypatch.chdir(refuses.folder)
    monkeypatch.setattr("sweeps.resolve.visible_gpus", list)
    arguments, said = LAUNCH[case]
    ours = [] if "--data" in arguments else ["--data", str(small_data[0])]
    ours += [] if "--cluster" in arguments else ["--cluster", "local"]
    if not arguments or case.startswith(("the status", "to ", "a dry run")):
        ours = []
    refuses.of(launch, *arguments, *ours, said=said)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("file", "--root .*file: cannot be written"),
        ("file/below", "--root .*below: cannot be written"),
        ("/proc/runs", "--root /proc/runs: cannot be written"),
        ("x" * 300, "--root .*: cannot be written .File name too long"),
        ("a\nb", "--root .*: choose a path without line breaks"),
        ("a\x1b[2Jb", "--root .*: choose a path without line breaks, control characters"),
        ("a\\b", "--root .*: choose a path without"),
    ],
)
def test_a_root_that_cannot_be_one_is_refused(
    refuses: Refusals, monkeypatch: pytest.MonkeyPatch, small_data: Any, root: str, said: str
) -> None:
    monkeypatch.chdir(refuses.folder)
    (refuses.folder / "file").touch()
    for action in (["--dry-run"], []):
        options = ["--study", "crd_attention", "--data", small_data[0], "--cluster", "local", *action]
        refuses.of(launch, *options, "--root", root, said=said)


@pytest.mark.parametrize("root", ["a b", 'it\'s "quoted"', "$(touch x)", "ünïcödé", "-dash", "100%j", "#x;y&z|w"])
def test_a_root_with_an_odd_name_is_only_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_data: Any, root: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--study", "crd_attention", "--data", small_data[0], "--cluster", "local", "--dry-run"]
    assert run(launch, *options, f"--root={root}") == 0
    assert str(tmp_path / root) in capsys.readouterr().out
    assert list(tree(tmp_path)) == [root]


def test_data_commands_refuse(refuses: Refusals) -> None:
    here = refuses.folder
    (here / "there.h5").write_bytes(b"x")
    (here / "text.pkl").write_text("text")
    for arguments, said in (
        ([], "required: COMMAND"),
        (["export"], "invalid choice: 'export'"),
        (["import"], "required: IMPORTER"),
        (["import", "imagenet", "a", "b"], "invalid choice: 'imagenet'"),
        (["inspect", here / "gone.h5"], "gone.h5: no such data file"),
        (["inspect", here], "no such data file"),
        (["inspect", "/dev/null"], "/dev/null: no such data file"),
        (["synthetic", here / "new.h5", "--seed", "x"], "--seed: invalid int value: 'x'"),
        (["synthetic", here / "new.h5", "--size", "huge"], "--size: invalid choice: 'huge'"),
        (["synthetic", here / "there.h5"], "there.h5: exists; choose another name or give --force"),
        (["synthetic", here / "gone" / "new.h5"], "does not exist; make it first"),
        (["synthetic", "/proc/new.h5"], "/proc/new.h5: "),
        (["import", "mosei", here / "gone.pkl", here / "new.h5"], "gone.pkl: cannot be read"),
        (["import", "mosei", here, here / "new.h5"], "cannot be read .Is a directory"),
        (["import", "mosei", here / "text.pkl", here / "new.h5"], "text.pkl: not a readable pickle"),
        (["import", "utd-mhad", here / "gone", here / "new.h5"], "no such directory or archive"),
        (["import", "utd-mhad", here / "text.pkl", here / "new.h5"], "not a whole tar or zip archive"),
        (["import", "utd-mhad", here, here / "new.h5"], "no file like Inertial/a1_s1_t1_inertial.mat"),
        (["import", "utd-mhad", here, here / "new.h5", "--steps", "1,2"], "--steps: '1,2': give three counts"),
        (["import", "utd-mhad", here, here / "new.h5", "--steps", "1,2,x"], "--steps: 'x' is not a whole number"),
        (["import", "utd-mhad", here, here / "new.h5", "--valid-subject", "2"], "--valid-subject: invalid choice: 2"),
    ):
        refuses.of(data.main, *arguments, said=said)


def test_commands_of_a_trial_refuse(refuses: Refusals) -> None:
    here, out, model = refuses.folder, refuses.folder / "out.csv", refuses.folder / "out.pt2"
    (here / "empty").mkdir()
    for main, arguments, said in (
        (trial.main, [], "required: DIR"),
        (trial.main, [here / "gone"], "gone/config.json: no such file"),
        (trial.main, [here / "empty"], "empty/config.json: no such file"),
        (trial.main, [here / "empty", "--attempt", "x"], "--attempt: invalid int value"),
        (predict.main, ["--trial", here / "gone"], "required: --data, --out"),
        (
            predict.main,
            ["--trial", here / "gone", "--data", "x.h5", "--out", out],
            "gone: no such trial or row",
        ),
        (predict.main, ["--trial", here / "gone", "--data", "x", "--out", out, "--split", "dev"], "choice: 'dev'"),
        (export.main, ["--trial", here / "empty", "--out", model], "empty: no finished trial here"),
        (export.main, ["--trial", here / "empty"], "required: --out"),
    ):
        refuses.of(main, *arguments, said=said)


def test_commands_that_read_a_root_refuse(refuses: Refusals, small_root: Path) -> None:
    here = refuses.folder
    (here / "empty").mkdir()
    root = ["--root", small_root, "--no-cache"]
    for arguments, said in (
        ([], "required: COMMAND"),
        (["tabel"], "invalid choice: 'tabel'"),
        (["table", "--root", here / "gone"], "gone: no such directory"),
        (["table", "--root", here / "empty"], "empty: no rows, teachers or studies in it"),
        (["table", *root, "--study", "dmo"], "unknown study 'dmo'; did you mean demo"),
        (["table", *root, "--study", "dmo.toml"], "unknown study 'dmo'; did you mean demo"),
        (["table", *root, "--study", "../../x"], "unknown study '../../x'"),
        (["table", *root, "--format", "xls"], "--format: invalid choice: 'xls'"),
        (["table", *root, "--error", "2sd"], "--error: invalid choice"),
        (["table", *root, "--columns", "acuracy"], "unknown column 'acuracy'"),
        (
            ["table", *root, "--out", here / "gone" / "x.txt"],
            "--out .*gone/x.txt: the directory .* does not exist",
        ),
        (["table", *root, "--out", here / "empty"], "--out .*empty: is a directory; name a file in it"),
        (["compare", *root, "kd", "kt"], "unknown row of study demo 'kt'"),
        (["compare", *root, "kd"], "required: B"),
        (["figures", *root, "--out", here / "f", "--only", "pie"], "--only: invalid choice: 'pie'"),
        (["figures", *root], "required: --out"),
        (["efficiency", *root, "--threads", "0"], "--threads 0: 1 or more"),
        (["efficiency", *root, "--seconds", "nan"], "--seconds nan: a number above 0"),
        (
            ["report", *root, "--out", here / "gone" / "r.html", "--figures"],
            "--out .*r.html: the directory .* does not exist",
        ),
        (["report", *root, "--study", "dmo", "--out", here / "r.html", "--figures"], "unknown study 'dmo'"),
    ):
        refuses.of(analyse, *arguments, said=said)
    for options, said in (
        (["--root", here / "gone"], "--root .*gone: no such directory"),
        (["--root", here / "empty"], "--root .*empty: no studies or rows in it"),
        (["--root", small_root, "--study", "dmo"], "did you mean demo"),
        (["--root", small_root, "--log", "kt/trials/0"], "unknown row .--log. 'kt'"),
        (["--root", small_root, "--log", "kd/trials/9"], "--log kd/trials/9: no such trial"),
        (["--root", small_root, "--log", "kd/trials/../../../../etc/passwd"], "no such trial"),
        (["--once", "--json"], "not allowed with"),
    ):
        refuses.of(monitor, *options, said=said)


def test_devcluster_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "cluster.json").write_text('{"options": ')
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "mine.txt").touch()
    for arguments, said in (
        (["start"], "invalid choice: 'start'"),
        (["up", "--nodes", "0"], "--nodes 0: must be 1 or more"),
        (["up", "--nodes", "x"], "--nodes: invalid int value"),
        (["up", "--max-submit", "2", "--no-accounting"], "--max-submit needs accounting"),
        (["status", "--folder", tmp_path / "gone"], "no cluster was brought up here"),
        (["down", "--folder", tmp_path / "torn"], "cluster.json: damaged"),
    ):
        assert run(devcluster.main, *arguments) == 2
        complaint = capsys.readouterr().err
        assert said in complaint.splitlines()[-1]
        assert "Traceback" not in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "torn"]
