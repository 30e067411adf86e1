"""What lies under a root may be torn, foreign or of another mmkd: it is named, and one trial hides no other."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from refusals import Refusals, run, tree

from analysis.__main__ import main as analyse
from mmkd import export, predict, trial
from mmkd.checksum import checksum_line
from mmkd.result_file import read_result
from mmkd.stored_text import fixed
from slurm.monitor import main as monitor
from sweeps.launch import main as launch


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


CONFIGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_text(""), "config.json: "),
    "cut short": (lambda p: p.write_text(p.read_text()[:100]), "config.json: "),
    "a list": (lambda p: p.write_text("[]"), "config.json: .*dictionary|config.json: "),
    "lists in lists": (lambda p: p.write_text("[" * 100_000), "config.json: "),
    "bytes": (lambda p: p.write_bytes(b"\xff\xfe{}"), "config.json: "),
    "an unknown key": (lambda p: change(p, epochs=3), "config.json: .*epochs: unknown key"),
    "an unknown role": (lambda p: change(p, role="pupil"), "config.json: .*'pupil'"),
    "no seed": (lambda p: change(p, seed=None), "config.json: .*seed: "),
    "a seed below 0": (lambda p: change(p, seed=-1), r"config.json: .*seed: .*\(is -1\)"),
    "a network without layers": (lambda p: change(p, network={"layers": 0}), "config.json: .*network.layers: "),
    "an infinite rate": (lambda p: change(p, training={"learning_rate": 1e999}), "config.json: .*learning_rate"),
    "an older algorithm": (lambda p: change(p, algorithm=1), "config.json: made by algorithm version 1, .*; finish it"),
    "a newer algorithm": (lambda p: change(p, algorithm=99), "config.json: made by algorithm version 99"),
    "other data": (lambda p: change(p, data={"path": "gone.h5", "fingerprint": "f"}), r"gone\.h5: no such data file"),
    "an unknown method": (lambda p: change(p, distillation={"method": "crt"}), "unknown method 'crt'"),
    "a method that is a module": (lambda p: change(p, distillation={"method": "base"}), "unknown method 'base'"),
    "an unknown pairing": (lambda p: change(p, pairing="smell"), "unknown pairing 'smell'"),
    "an unknown modality": (lambda p: change(p, primary="smell"), "unknown .*modality 'smell'"),
    "no teacher where one is needed": (lambda p: change(p, distillation={"method": "kd"}), "kd needs a teacher"),
    "CUDA where there is none": (lambda p: change(p, device="cuda"), "this machine shows no CUDA device"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_trial_whose_configuration_cannot_be_is_refused(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spoil, said = CONFIGS[case]
    place = lab.place(lab.student())
    spoil(place.config)
    assert run(trial.main, place.path) == 2
    complaint = capsys.readouterr().err
    assert re.search(said, complaint), complaint
    assert complaint.count("\n") == 1
    assert not {"result.h5", "checkpoint.pt", "weights.pt", "job.lock"} & set(tree(place.path))
    assert not [name for name in tree(place.path) if ".tmp-" in name]


class Call:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def hostile(path: Path) -> None:
    torch.save({"identity": Call()}, path)


def add_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes() + checksum_line(path.read_bytes()))


def verified(path: Path, value: object) -> None:
    torch.save(value, path)
    add_checksum(path)


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda p: p.write_bytes(b""),
    "a text": lambda p: p.write_text("a text"),
    "a zip of nothing": lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)),
    "a pickle that calls": lambda p: p.write_bytes(pickle.dumps(Call())),
    "a torch file that calls": hostile,
    "a verified file that calls": lambda p: verified(p, {"identity": Call()}),
    "verified, of another configuration": lambda p: verified(p, {"identity": "other"}),
    "verified, a list": lambda p: verified(p, [1, 2]),
    "verified, a tensor": lambda p: verified(p, torch.ones(3)),
    "verified, without its parts": lambda p: verified(p, {"identity": "?"}),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used_runs_nothing_and_is_said(
    lab: Any, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    place = lab.place(lab.student())
    CHECKPOINTS[case](place.checkpoint)
    assert trial.load_checkpoint(lab.student(), place, torch.device("cpu")) is None
    said = capsys.readouterr()
    assert said.err.startswith(f"warning: {place.checkpoint}: ")
    assert said.err.endswith("; the trial begins again\n")
    assert said.err.count("\n") == 1
    assert "it ran" not in said.out


def spoil_h5(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A result that was changed before its checksum was made."""

    def spoil(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)
        add_checksum(path)

    return spoil


RESULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda p: p.write_bytes(b""),
    "a text": lambda p: p.write_text("a text\n\x1b[2J"),
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:3000]),
    "a flipped bit": lambda p: p.write_bytes(bytes(b ^ (n == 2500) for n, b in enumerate(p.read_bytes()))),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "of an older version": spoil_h5(lambda f: f.attrs.update(result_version=2)),
    "of a newer version": spoil_h5(lambda f: f.attrs.update(result_version=99)),
    "without a status": spoil_h5(lambda f: f.attrs.__delitem__("status")),
    "of an unknown status": spoil_h5(lambda f: f.attrs.update(status=fixed("splendid"))),
    "a configuration that is no JSON": spoil_h5(lambda f: f.attrs.update(config=fixed("{"))),
    "a configuration of lists in lists": spoil_h5(lambda f: f.attrs.update(config=fixed("[" * 50_000))),
    "text of variable length": spoil_h5(lambda f: f.attrs.update(status="complete")),
    "metrics that are an array": spoil_h5(lambda f: (f.__delitem__("metrics"), f.__setitem__("metrics", 1))),
    "metrics that are texts": spoil_h5(lambda f: f["metrics/valid"].attrs.update(loss="low")),
    "a curve without values": spoil_h5(
        lambda f: (f.__delitem__("curves/valid_loss"), f.__setitem__("curves/valid_loss", h5py.Empty("f8")))
    ),
    "a petabyte of curve": spoil_h5(lambda f: f.create_dataset("curves/x", (2**47,), "f8", chunks=(1024,))),
}


@pytest.mark.parametrize("case", RESULTS)
def test_a_result_that_cannot_be_used_is_named_by_every_reader_and_hides_no_other(
    refuses: Refusals, small_root: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    place = small_root / "rows" / "kd-00000000" / "confirm" / "1-ab12cd34"
    RESULTS[case](place / "result.h5")
    for main, options in ((predict.main, ["--data", "x.npy", "--out", "x.csv"]), (export.main, ["--out", "x.pt2"])):
        refuses.of(main, "--trial", place, *options, said="no finished trial here .*h5")
    assert run(analyse, "doctor", "--root", small_root, "--no-cache") == 1
    shown = capsys.readouterr()
    assert "confirm/1-ab12cd34" in shown.out
    assert "\x1b" not in shown.out
    assert run(analyse, "table", "--root", small_root, "--no-cache") == 0
    assert ("1/2" in capsys.readouterr().out) is ("curve" not in case), "a table needs no curves"
    assert run(monitor, "--root", small_root, "--once") == 0
    shown = capsys.readouterr()
    assert "kd" in shown.out
    assert shown.err == ""


RECORDS: dict[str, tuple[str, str]] = {
    "empty": ("", "demo.json: "),
    "cut short": ('{"title": "Demo", "rows": [', "demo.json: "),
    "a list": ("[]", "demo.json: "),
    "lists in lists": ("[" * 100_000, "demo.json: "),
    "without rows": ('{"name": "demo", "title": "Demo", "control": null}', "demo.json: .*rows"),
    "rows that are numbers": ('{"name": "demo", "title": "D", "control": null, "rows": [1]}', "demo.json: .*rows"),
    "a row without a folder": (
        '{"name": "demo", "title": "D", "control": null, "rows": [{"name": "kd", "label": "l", "trials": 1, '
        '"seeds": [1], "teachers": []}]}',
        "demo.json: .*(directory|rows)",
    ),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_studys_record_that_is_damaged_is_named(
    refuses: Refusals, small_root: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    content, said = RECORDS[case]
    (small_root / "studies" / "demo.json").write_text(content)
    monkeypatch.chdir(refuses.folder)
    for main, *options in (
        (launch, "--study", "demo", "--status"),
        (launch, "--study", "demo", "--cancel", "--cluster", "local"),
        (launch, "--study", "demo", "--clean"),
        (launch, "--study", "demo", "--archive", "a.tar.gz"),
        (analyse, "table", "--no-cache"),
        (analyse, "figures", "--no-cache", "--out", "f", "--only", "forest"),
        (analyse, "report", "--no-cache", "--out", "r.html", "--study", "demo", "--figures"),
        (monitor, "--once"),
    ):
        refuses.of(main, *options, "--root", small_root, said=said)


@pytest.mark.parametrize("key", ["directory", "teachers", "name"])
def test_a_studys_record_leads_to_no_other_folder(refuses: Refusals, small_root: Path, key: str) -> None:
    """`--clean` removes checkpoints where a record leads it, and figures are called after rows."""
    path = small_root / "studies" / "demo.json"
    record = json.loads(path.read_text())
    record["rows"][0][key] = ["../../elsewhere"] if key == "teachers" else "../../elsewhere\x1b[2J"
    path.write_text(json.dumps(record))
    elsewhere = refuses.folder / "elsewhere"
    (elsewhere / "trials" / "0").mkdir(parents=True)
    (elsewhere / "trials" / "0" / "checkpoint.pt").write_text("keep me")
    if key != "name":
        refuses.of(launch, "--root", small_root, "--study", "demo", "--clean", said=rf"demo\.json: .*{key}")
    if key != "teachers":
        refuses.of(analyse, "table", "--root", small_root, "--no-cache", said=rf"demo\.json: .*{key}")
    assert (elsewhere / "trials" / "0" / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["row.json", "winner.json", "trials/0/config.json", "trials/0/attempts/1.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"trial": "x"}', "[" * 100_000, "5"])
def test_other_records_that_are_damaged_do_not_stop_the_readers(
    small_root: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (small_root / "rows" / "kd-00000000" / name).write_text(content)
    assert run(monitor, "--root", small_root, "--once") == 0
    assert run(monitor, "--root", small_root, "--json") == 0
    assert run(analyse, "doctor", "--root", small_root, "--no-cache") in (0, 1)
    assert run(analyse, "table", "--root", small_root, "--no-cache") == 0
    assert run(analyse, "report", "--root", small_root, "--no-cache", "--figures", "--out", small_root / "r.html") == 0
    assert capsys.readouterr().err.count("error") == 0


def test_the_small_root_is_a_good_one(small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in small_root.rglob("result.h5"):
        read_result(path)
    assert run(analyse, "table", "--root", small_root, "--no-cache") == 0
    assert "Hinton's KD" in capsys.readouterr().out
    assert run(launch, "--root", small_root, "--study", "demo", "--status") == 0
