"""A study or site file that says something impossible is refused before anything is made, and the key is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from refusals import Refusals

from sweeps.launch import main

STUDY = """
title = "a study"
control = "crd"
[student]
width = 8
heads = 2
[[rows]]
name = "crd"
method = "crd"
level = "attention_maps"
space = { learning_rate = 1e-3, beta = { low = 0.1, high = 1.0 } }
"""

KEYS = {
    "trials = 0": ("title = ", "defaults.trials = 0\ntitle = ", r"defaults.trials: .* \(is 0\)"),
    "trials not whole": ("title = ", "defaults.trials = 1.5\ntitle = ", r"defaults.trials: .* \(is 1.5\)"),
    "trials a word": ("title = ", "defaults.trials = 'many'\ntitle = ", r"defaults.trials: .*'many'"),
    "trials NaN": ("title = ", "defaults.trials = nan\ntitle = ", "defaults.trials: "),
    "more seeds than anybody has": ("title = ", "defaults.seeds = 1000000000\ntitle = ", "defaults.seeds: .*10000"),
    "an unknown sampler": ("title = ", "defaults.sampler = 'luck'\ntitle = ", "defaults.sampler: .*'luck'"),
    "an unknown selection": ("title = ", "defaults.selection = 'luck'\ntitle = ", "defaults.selection: .*'luck'"),
    "an unknown key": ("title = ", "titel = 'x'\ntitle = ", "titel: unknown key, did you mean title"),
    "an unknown key of a row": ('method = "crd"', 'method = "crd"\nlevels = 1', r"rows.crd.levels: unknown key"),
    "a title of another type": ('"a study"', "3", r"title: .*string.* \(is 3\)"),
    "a title of two lines": ('"a study"', r'"a\nb"', "title: .*one line"),
    "a title that steers the terminal": ('"a study"', r'"a\u001b[2J"', "title: .*one line"),
    "a label written backwards": ('name = "crd"', 'name = "crd"\nlabel = "\\u202exe"', "rows.crd.label: .*one line"),
    "an empty label": ('name = "crd"', 'name = "crd"\nlabel = " "', "rows.crd.label: .*one line"),
    "no title": ('title = "a study"', "", "title: Field required"),
    "low above high": ("low = 0.1", "low = 2.0", "rows.crd.space.beta: low = 2.0 is not below high = 1.0"),
    "low is high": ("low = 0.1", "low = 1.0", "rows.crd.space.beta: low = 1.0 is not below"),
    "NaN in a range": ("low = 0.1", "low = nan", "rows.crd.space.beta.*finite number"),
    "infinity in a range": ("high = 1.0", "high = inf", "rows.crd.space.beta.*finite number"),
    "a logarithm of 0": ("low = 0.1", "log = true, low = 0.0", "rows.crd.space.beta: a logarithmic range begins above"),
    "a default outside": ("low = 0.1", "default = 0.05, low = 0.1", "default = 0.05 is outside"),
    "a weight above 1": ("high = 1.0", "high = 1.5", r"beta must be in \[0, 1\]"),
    "a range without an end": (", high = 1.0", "", "rows.crd.space.beta.high: Field required"),
    "a learning rate of infinity": ("learning_rate = 1e-3", "learning_rate = inf", "space.learning_rate"),
    "a negative learning rate": ("learning_rate = 1e-3", "learning_rate = -1.0", "space.learning_rate"),
    "an unknown method": ('method = "crd"', 'method = "crt"', "row crd: unknown method 'crt'; did you mean crd"),
    "a method that is a path": ('method = "crd"', 'method = "../x"', "row crd: unknown method '../x'"),
    "an unknown level": ('"attention_maps"', '"attention"', "row crd: unknown level of crd 'attention'"),
    "an unknown pairing": ('method = "crd"', 'method = "crd"\npairing = "smell"', "unknown pairing 'smell'"),
    "an unknown modality": ("title = ", "primary = 'smell'\ntitle = ", "no modality 'smell': give --primary"),
    "an unknown setting": ('method = "crd"', 'method = "crd"\nsettings.rowz = 2', "settings of method crd: rowz"),
    "a setting that is NaN": ('method = "crd"', 'method = "crd"\nsettings.embedding = nan', "settings of method crd"),
    "a setting that is a date": ('method = "crd"', 'method = "crd"\nsettings.embedding = 1979-05-27', "settings of"),
    "an unknown profile": ("title = ", "profile = 'nothing'\ntitle = ", "unknown profile 'nothing'"),
    "a profile that is not there": ("title = ", "profile = 'none.toml'\ntitle = ", "none.toml: No such file"),
    "a control that is no row": ('control = "crd"', 'control = "none"', r"control = 'none' is no row \(rows: crd\)"),
    "no rows": ('[[rows]]\nname = "crd"', "[rows]", "rows: "),
    "a row without a method": ('method = "crd"', "", "rows.crd.method: Field required"),
    "a row's name that is a path": ('name = "crd"', 'name = "../../x"', "row '../../x': use 1 to 80 letters"),
    "a row's name for a shell": ('name = "crd"', 'name = "a;rm -rf $(x)`y`"', "use 1 to 80 letters"),
    "a row's name like an option": ('name = "crd"', 'name = "-x"', "row '-x': use"),
    "a row's name of two lines": ('name = "crd"', r'name = "a\nb"', r"row 'a\\nb': use"),
    "a row's name of 300 letters": ('name = "crd"', f'name = "{"x" * 300}"', "use 1 to 80 letters"),
    "a row's name in another script": ('name = "crd"', 'name = "ряд"', "row 'ряд': use"),
    "heads that do not divide": ("heads = 2", "heads = 3", "student: heads = 3 does not divide width = 8"),
    "an unknown key of a network": ("heads = 2", "haeds = 2", "student: haeds: unknown key, did you mean heads"),
    "a dropout above 1": ("heads = 2", "heads = 2\ndropout.relu = 1.5", "student: dropout.relu: .*1.5"),
    "a network that is a number": ("[student]\nwidth = 8\nheads = 2", "", None),
    "no epochs": ("[student]", "[training]\nepochs = 0\n[student]", r"training: epochs: .*\(is 0\)"),
    "a learning rate that is a date": (
        "[student]",
        "[training]\nlearning_rate = 1979-05-27\n[student]",
        "learning_rate",
    ),
    "an unknown preset": ("heads = 2", "heads = 2\npreset = 'huge'", "unknown preset 'huge'"),
}


@pytest.mark.parametrize("case", [case for case, (_, _, said) in KEYS.items() if said])
def test_a_value_that_cannot_be_is_named_with_its_key(
    refuses: Refusals, small_data: tuple[Path, str], case: str
) -> None:
    old, new, said = KEYS[case]
    assert old in STUDY
    path = refuses.folder / "mine.toml"
    path.write_text(f'data = "{small_data[0]}"\n{STUDY.replace(old, new, 1)}')
    refuses.of(main, *launch(path, refuses.folder), said=rf"mine\.toml.*{said}|{said}")


def launch(study: object, folder: Path, *more: object) -> tuple[object, ...]:
    return ("--study", study, "--dry-run", "--cluster", "local", "--device", "cpu", "--root", folder / "runs", *more)


def test_two_rows_of_one_name_are_refused(refuses: Refusals) -> None:
    path = refuses.folder / "mine.toml"
    path.write_text(STUDY + '[[rows]]\nname = "crd"\nmethod = "kd"\n')
    refuses.of(main, *launch(path, refuses.folder), said="mine.toml: two rows are called crd")


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "title: Field required; rows: Field required"),
    "not TOML": (b"title = 'x'\nrows = [", "not a TOML file: .*end of document"),
    "a number": (b"5", "not a TOML file"),
    "not UTF-8": (b"title = '\xff\xfe'", "not a TOML file: 'utf-8' codec"),
    "UTF-16": ("title = 'x'".encode("utf-16"), "not a TOML file"),
    "a NUL": (b"title = '\0'", "not a TOML file"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(99), "not a TOML file"),
    "lists in lists": (b"title = " + b"[" * 100_000, "not a TOML file"),
    "a key twice": (b"title = 'x'\ntitle = 'y'", "not a TOML file: Cannot overwrite a value"),
    "10 MB": (b"title = '" + b"x" * 10**7 + b"'", "larger than 1048576 bytes"),
    "rows of numbers": (b"title = 'x'\nrows = [1, 2]", "rows.0: "),
    "rows a word": (b"title = 'x'\nrows = 'crd'", "rows: .*list"),
    "a row's name a number": (b"title = 'x'\n[[rows]]\nname = 3\nmethod = 'kd'", r"rows.3.name: .*\(is 3\)"),
    "defaults a number": (b"title = 'x'\ndefaults = 3\n[[rows]]\nname = 'a'\nmethod = 'kd'", "defaults: "),
}


@pytest.mark.parametrize("case", FILES)
def test_what_is_no_study_file_is_named(refuses: Refusals, case: str) -> None:
    content, said = FILES[case]
    path = refuses.folder / "mine.toml"
    path.write_bytes(content)
    refuses.of(main, *launch(path, refuses.folder), said=rf"mine\.toml: .*{said}")


def test_a_study_that_is_no_file_or_has_an_odd_name_is_refused(refuses: Refusals) -> None:
    (refuses.folder / "folder.toml").mkdir()
    (refuses.folder / "a b.toml").write_text(STUDY)
    refuses.of(main, *launch(refuses.folder / "folder.toml", refuses.folder), said=r"folder\.toml: no such study file")
    refuses.of(main, *launch(refuses.folder / "gone.toml", refuses.folder), said=r"gone\.toml: no such study file")
    refuses.of(main, *launch(refuses.folder / "a b.toml", refuses.folder), said="study 'a b': use 1 to 80")
    refuses.of(main, *launch("crd_atention", refuses.folder), said="unknown study 'crd_atention'; did you mean crd_att")
    (refuses.folder / "passwd").write_text("root")
    refuses.of(main, *launch(refuses.folder / "passwd", refuses.folder), said="a study file ends in .toml")
    refuses.of(main, *launch("../../gone/passwd", refuses.folder), said="unknown study '../../gone/passwd'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_study_that_may_not_be_read_is_refused(refuses: Refusals) -> None:
    path = refuses.folder / "mine.toml"
    path.write_text(STUDY)
    path.chmod(0)
    refuses.of(main, *launch(path, refuses.folder), said=r"mine\.toml: Permission denied")


SITES: dict[str, tuple[bytes, str]] = {
    "an unknown key": (b"[slurm]\npartitoin = 'gpu'", "slurm.partitoin: unknown key, did you mean partition"),
    "no number of jobs": (b"parallel = 0", r"parallel: .*\(is 0\)"),
    "a wrong type": (b"stage = 'perhaps'", "stage: "),
    "no memory": (b"[slurm]\nmem = '16 gigs'", "slurm.mem: .*write 16G"),
    "no time": (b"[slurm]\ntime = 'tomorrow'", "slurm.time: .*write minutes"),
    "a time in other digits": ("[slurm]\ntime = '٣٠'".encode(), "slurm.time: .*write minutes"),
    "a time within the grace": (b"[slurm]\ntime = '1'", "not above the grace"),
    "a second line of options": (b'[slurm]\npartition = "gpu\\n#SBATCH --uid=0"', "slurm.partition: .*a single line"),
    "an option that is none": (b"[slurm]\nextra = { 'a;b' = '1' }", "slurm.extra: .*long name without dashes"),
    "a question never asked": (b"[slurm]\npoll = inf", "slurm.poll: .*finite"),
    "not TOML": (b"[slurm", "not a TOML file"),
    "a detached controller with a key of others": (b"[detach]\ngpus = 1", "detach.gpus: unknown key here"),
    "a mistyped key of trials' jobs alone": (b"[slurm]\nmem_limt = '64G'", "slurm.mem_limt: unknown key, .*mem_limit"),
    "a key above its table": (b"partition = 'gpu'\n[slurm]\ncpus = 4", r"partition: belongs under \[slurm\], or under"),
    "a trial's key above its table": (
        b"setup = ['module load x']",
        r"setup: belongs under \[slurm\]; move it below that heading",
    ),
    "memory as a number": (b"[slurm]\nmem = 16", 'slurm.mem: .*write "16G"'),
    "a controller's memory as a number": (b"[detach]\nmem = 4", 'detach.mem: .*write "4G"'),
    "a controller's time in words": (b"[detach]\ntime = 'soon'", "detach.time: .*write minutes"),
    "an array": (b"[slurm]\nextra = { array = '0-3' }", "slurm.extra: array cannot be given"),
}


@pytest.mark.parametrize("case", SITES)
def test_a_site_file_is_refused_with_its_name_and_key(refuses: Refusals, case: str) -> None:
    content, said = SITES[case]
    path = refuses.folder / "lab.toml"
    path.write_bytes(content)
    refuses.of(main, *launch("crd_attention", refuses.folder, "--site", path), said=rf"lab\.toml: .*{said}")


def test_a_site_file_that_is_none_is_refused(refuses: Refusals) -> None:
    for path, said in ((refuses.folder, "not a file"), (Path("/dev/zero"), "not a file"), (Path("gone"), "No such")):
        refuses.of(main, *launch("crd_attention", refuses.folder, "--site", path), said=f"{path}: {said}")
