"""Plausible mistakes of a newcomer: each message names the problem and the remedy, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from refusals import Refusals

from analysis.__main__ import main as analyse
from mmkd import distillation
from mmkd.data import Split, write_dataset
from mmkd.data.__main__ import main as data
from mmkd.predict import main as predict
from slurm.monitor import main as monitor
from sweeps.launch import main as launch

STUDY = """
title = "mine"
control = "none"
data = "video.h5"
[student]
width = 8
heads = 2
[[rows]]
name = "none"
method = "no_kd"
[[rows]]
name = "crd"
method = "crd"
level = "attention_maps"
space = { beta = { low = 0.1, high = 1.0 } }
"""

ROWS = STUDY[STUDY.index("[[rows]]") :]

COMMAND_LINES: dict[str, tuple[str, str]] = {
    "a misspelt option": ("--trails 3", r"--trails; did you mean --trials\?"),
    "a misspelt action": ("--statsu", r"--statsu; did you mean --status\?"),
    "an option in the singular": ("--epoch 3", r"--epoch 3; did you mean --epochs\?"),
    "sbatch's partition": ("--partition gpu", r"--partition; did you mean --slurm\.partition\?"),
    "sbatch's gpus": ("--gpus=1", r"--gpus=1; did you mean --slurm\.gpus\?"),
    "sbatch's mem": ("--mem 16G", r"--mem; did you mean --slurm\.mem\?"),
    "sbatch's time": ("--time 1:00:00", r"--time; did you mean --slurm\.time\?"),
    "sbatch's account": ("--account lab", r"--account; did you mean --slurm\.account\?"),
    "sbatch's qos": ("--qos high", r"--qos; did you mean --slurm\.qos\?"),
    "sbatch's nodes": ("--nodes 4", "--nodes; a trial is one process; --parallel sets"),
    "sbatch's cores": ("--cpus-per-task 4", r"did you mean --slurm\.cpus\?"),
    "sbatch's short option": ("-p gpu", r"-p gpu; did you mean --slurm\.partition\?"),
    "sbatch's array": ("--array 0-9", "sbatch's --array cannot be given: each trial is one process"),
    "a key of the study as an option": ("--batch-size 16", r"key of the study file: --set training\.batch_size=VALUE"),
    "a learning rate": ("--lr 0.01", r"--set defaults\.space\.learning_rate=0\.001 fixes it"),
    "a directory of results": ("--output results", "--output; --root names the directory"),
    "a number of workers": ("--workers 4", "--workers; --parallel sets the number of trials"),
    "to resume": ("--resume", "--resume; to resume, run the same command again without it"),
    "a study without its option": ("mine.toml", r"mine\.toml; write --study mine\.toml"),
    "a study without its ending": ("--study mine", r"for the file that is here: --study mine\.toml"),
    "a study with dashes": ("--study crd-attention", r"unknown study 'crd-attention'; did you mean crd_attention"),
    "a study in YAML": ("--study mine.yaml", r"--study mine\.yaml: a study file ends in \.toml"),
    "a key without its table": (
        "--set batch_size=16",
        r"--set batch_size: no such key; did you mean training\.batch_size .*\(keys: control, data, .*training\)",
    ),
    "a misspelt key": (
        "--set training.bach_size=16",
        r"--set training\.bach_size: no such key; did you mean training\.batch_size\? \(keys of training: .*clip",
    ),
    "a misspelt table of a key": (
        "--set rows.crd_attention.space.bta.high=0.4",
        r"no such key; did you mean rows\.crd_attention\.space\.beta\.high\? \(keys of rows\.NAME\.space: alpha",
    ),
    "a word as a number": ("--set training.batch_size=big", "--set training.batch_size=big: row none"),
    "--set of an unknown row": ("--set rows.crdd.trials=3", "--set rows.crdd.trials: .* mean crd"),
    "--set with spaces": ("--set training.epochs = 3", "= 3; write KEY=VALUE without spaces"),
    "--set once for two": ("--set data=a.h5 primary=b", "write --set before each KEY=VALUE: --set pri"),
    "a list of seeds": ("--seeds 1,2,3", "--seeds: '1,2,3' is a list; give a number: 3 for as many"),
    "several seeds": ("--seeds 1 2 3", "2 3; each value needs its option before it"),
    "too many seeds": ("--seeds 99999", r"mine\.toml with --seeds 99999: defaults\.seeds: .*10000"),
    "an unknown pairing": ("--pairing other", "with --pairing other: .*did you mean others"),
    "a sampler in capitals": ("--sampler TPE", "invalid choice: 'TPE' .*did you mean tpe"),
    "data without their modality": (
        "--data body.h5",
        r"body\.h5: the data have no modality 'video': give --primary skeleton or accelerometer",
    ),
    "a misspelt modality": ("--data body.h5 --primary skelton", r"did you mean skeleton\?"),
    "an archive as data": ("--data UTD.zip", r"UTD\.zip: not an HDF5 file; import .*mmkd.data --help"),
    "memory without a unit": ("--slurm.mem 16", 'slurm.mem: .*write "16G"'),
    "hours with a letter": ("--slurm.time 2h", "slurm.time: '2h' is not a time limit; write minutes"),
    "a title for a name": ("--as 'my_table!'", "study .*use 1 to 80 letters, digits"),
    "the status of nothing": ("--status", r"no study 'mine' was launched there \(there are: none\)"),
}  # fmt: skip
STUDY_FILES: dict[str, tuple[str, str, str]] = {
    "YAML": ('title = "mine"', "title: mine", r"not a TOML file: .*line 2.*; write key = value, and text in quotes"),
    "text without quotes": ('title = "mine"', "title = mine", r"Invalid value \(at line 2.*text in quotes"),
    "one bracket": ("[[rows]]", "[rows]", "not a TOML file: .*line"),
    "rows as a table": (ROWS, "[rows.crd]\nmethod = 'crd'", r"rows: write \[\[rows\]\] with"),
    "a row in the singular": ("[[rows]]", "[[row]]", r"row: unknown key, did you mean rows\?"),
    "epochs above their table": ("control =", "epochs = 3\ncontrol =", "epochs: unknown key here, did you mean tr"),
    "seeds above their table": ("control =", "seeds = 3\ncontrol =", "seeds: unknown key here, did you mean d"),
    "a list of seeds": ("control =", "defaults.seeds = [1, 2]\ncontrol =", "seeds: give a number, not a list: 2"),
    "a learning rate in a row": ('"crd"\nlevel', '"crd"\nlearning_rate = 1\nlevel', "learning_rate: unknown key here"),
    "a method in capitals": ('"crd"\nlevel', '"CRD"\nlevel', r"row crd: unknown method 'CRD'; did you mean crd\?"),
    "a range as a list": ("{ low = 0.1, high = 1.0 }", "[0.1, 1.0]", r"beta: write a range as \{ low = 0\.1, high"),
    "a range the wrong way": ("low = 0.1, high = 1.0", "low = 1.0, high = 0.1", "low = 1.0 is not below high = 0.1"),
    "a control that is no row": ('control = "none"', 'control = "kd"', r"control = 'kd' is no row \(rows: none, crd\)"),
    "a level of another name": ('"attention_maps"', '"attention"', r"did you mean attention_maps\?"),
    "an unknown setting": ("space =", "settings.temp = 3\nspace =", r"temp: unknown key.*\(settings: estimator, embed"),
    "a dropout for all": ("heads = 2", "dropout = 0.1", "student: dropout: write a table with keys such as embedding"),
    "heads of another library": ("heads = 2", "num_heads = 2", r"num_heads: unknown key, did you mean heads\?"),
    "a space in a name": ('name = "crd"', 'name = "my row"', "row 'my row': use 1 to 80 letters"),
}  # fmt: skip
SITE_FILES: dict[str, tuple[str, str]] = {
    "sbatch's name": ("[slurm]\ncpus_per_task = 4", "slurm.cpus_per_task: unknown key, did you mean cpus"),
    "a key above its table": ("partition = 'gpu'", r"partition: belongs under \[slurm\]"),
    "a line of a shell": ("module load cuda", "not a TOML file: .*write key = value, and text in quotes"),
}
METHODS: dict[str, tuple[str, str]] = {
    "a syntax error": ("class Method:\n    def", r"method mine: cannot be imported: .*mine\.py, line 2: SyntaxError"),
    "an unknown name": ("x = 1\ny = torch.zeros(x)", r"mine\.py, line 2: NameError: name 'torch' is not defined"),
    "a module that is missing": ("import torsh", r"mine\.py, line 1: ModuleNotFoundError: No module named 'torsh'"),
    "no class": ("def loss(student, teacher): ...", r"mine\.py: define a class Method\(DistillationMethod\)"),
    "another base": ("class Method: ...", r"mine\.py: define a class Method\(DistillationMethod\)"),
}
COMMANDS: dict[str, tuple[Callable[[list[str]], int], str, str]] = {
    "a misspelt command": (analyse, "tabel", r"invalid choice: 'tabel' .*did you mean table\?"),
    "an option before the command": (analyse, "--root runs table", "--root; options follow the command"),
    "a misspelt option of a command": (analyse, "table --formt csv", r"--formt; did you mean --format\?"),
    "an underscore": (data, "import utd_mhad a.zip b.h5", r"invalid choice: 'utd_mhad' .*did you mean utd-mhad\?"),
    "a misspelt required option": (predict, "--trail x --data video.h5", r"--trail; did you mean --trial\?"),
    "a misspelt option of the monitor": (monitor, "--jsn", r"--jsn; did you mean --json\?"),
}  # fmt: skip


@pytest.fixture
def here(refuses: Refusals, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a study, its data, other data, and an archive."""
    monkeypatch.chdir(refuses.folder)
    Path("mine.toml").write_text(STUDY)
    Path("mine.yaml").write_text("title: mine")
    Path("UTD.zip").write_bytes(b"PK\x03\x04")
    write_data(Path("video.h5"), "video", "audio")
    write_data(Path("body.h5"), "skeleton", "accelerometer", "gyroscope")
    Path("runs").mkdir()
    return refuses.folder


def write_data(path: Path, *modalities: str) -> None:
    arrays = {m: np.random.default_rng(0).normal(size=(6, 4, 3)).astype("f4") for m in modalities}
    splits = {name: Split(arrays=arrays, labels=np.arange(6) % 2) for name in ("train", "valid", "test")}
    write_dataset(path, splits, classes=["a", "b"], source="made up", license="none")


def refuses_launch(refuses: Refusals, line: str, said: str) -> None:
    study = [] if "mine.toml" in line or "--study" in line else ["--study", "mine.toml"]
    cluster = [] if "--status" in line else ["--cluster", "local"]
    refuses.of(launch, *line.split(), *study, *cluster, said=said)


@pytest.mark.parametrize("case", COMMAND_LINES)
def test_a_mistake_on_the_command_line(refuses: Refusals, here: Path, case: str) -> None:
    refuses_launch(refuses, *COMMAND_LINES[case])


@pytest.mark.parametrize("case", STUDY_FILES)
def test_a_mistake_in_a_study_file(refuses: Refusals, here: Path, case: str) -> None:
    old, new, said = STUDY_FILES[case]
    assert old in STUDY
    (here / "mine.toml").write_text(STUDY.replace(old, new, 1))
    refuses_launch(refuses, "--study mine.toml", rf"error: mine\.toml: .*{said}")


@pytest.mark.parametrize("case", SITE_FILES)
def test_a_mistake_in_a_site_file(refuses: Refusals, here: Path, case: str) -> None:
    content, said = SITE_FILES[case]
    (here / "lab.toml").write_text(content)
    refuses_launch(refuses, "--study mine.toml --site lab.toml", rf"error: lab\.toml: .*{said}")


@pytest.mark.parametrize("case", METHODS)
def test_a_mistake_in_a_method(
    refuses: Refusals, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    content, said = METHODS[case]
    folder = tmp_path_factory.mktemp("methods")  # Python caches what it compiles beside it
    name = f"mine{len(case)}"
    (folder / f"{name}.py").write_text(content)
    monkeypatch.setattr(distillation, "__path__", [*distillation.__path__, str(folder)])
    (here / "mine.toml").write_text(STUDY.replace('"no_kd"', f'"{name}"'))
    refuses_launch(refuses, "--study mine.toml", said.replace("mine", name))


@pytest.mark.parametrize("case", COMMANDS)
def test_a_mistake_with_another_command(refuses: Refusals, here: Path, case: str) -> None:
    main, line, said = COMMANDS[case]
    refuses.of(main, *line.split(), said=said)
