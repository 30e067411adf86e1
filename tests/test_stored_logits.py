"""What predicts after training computes the logits that the trial stored, whatever zeros the data hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmkd import export, predict
from mmkd.data import Split, read_split, write_dataset
from mmkd.metrics import softmax
from mmkd.result_file import read_result
from mmkd.rundir import TrialDir
from mmkd.training.stored_logits import check_logits, compute_logits
from mmkd.training.trained_network import load_student

FACTS: dict[str, Any] = {"classes": ["a", "b"], "source": "synthetic (tests)", "license": "CC0-1.0"}


def zeros_everywhere(rng: np.random.Generator, name: str, features: int) -> Split:
    """Video with real steps that are all zero: inside, at the end, and the first one, as its length says."""
    samples, steps = 40, 9
    labels = rng.integers(0, 2, samples)
    video = (rng.normal(2.0 + labels[:, None, None], 1.0, (samples, steps, features))).astype("f4")
    lengths = rng.integers(3, steps + 1, samples)
    video[np.arange(steps) < steps - lengths[:, None]] = 0
    video[::2, -2] = 0
    video[::3, -3:] = 0  # real steps at the end
    video[np.arange(1, samples, 4), steps - lengths[1::4]] = 0
    audio = rng.normal(size=(samples, 4, 2)).astype("f4")
    ids = [f"{name}{n}" for n in range(samples)]
    return Split(arrays={"video": video, "audio": audio}, lengths={"video": lengths}, labels=labels, ids=ids)


@dataclass
class Trained:
    trial: TrialDir
    data: Path


@pytest.fixture(params=["1 feature", "5 features", "width 1", "float16"])
def trained(request: pytest.FixtureRequest, lab: Any, tmp_path: Path) -> Trained:
    """A student without a teacher on data full of zeros."""
    rng = np.random.default_rng(0)
    features = 5 if request.param == "5 features" else 1
    splits = {name: zeros_everywhere(rng, name, features) for name in ("train", "valid", "test")}
    if request.param == "float16":
        splits = {n: Split(**{**vars(s), "arrays": {m: a.astype("f2") for m, a in s.arrays.items()}}) for n, s in
                  splits.items()}  # fmt: skip
    path = tmp_path / "zeros.h5"
    data = {"path": str(path), "fingerprint": write_dataset(path, splits, **FACTS)}
    network = {"width": 1, "heads": 1} if request.param == "width 1" else {}
    return Trained(lab.run(lab.student(evaluate_test=True, data=data, network=network)), path)


def test_predictions_equal_the_stored_logits(trained: Trained, tmp_path: Path) -> None:
    student = load_student(trained.trial.path)
    stored = read_result(trained.trial.result).predictions["test"]
    data = read_split(trained.data, "test", ["video"], standardise=False)
    assert (data.arrays["video"][np.arange(40), -data.lengths["video"]] == 0).all(1).any(), "a real step that is zero"
    arrays = torch.from_numpy(data.arrays["video"]), torch.from_numpy(data.lengths["video"])
    logits = compute_logits(student.model, *arrays, lambda what: None).numpy()
    assert np.abs(logits - stored.logits).max() < 1e-5
    options = ["--trial", str(trained.trial.path), "--data", str(trained.data), "--out", str(tmp_path / "p.csv")]
    assert predict.main(options) == 0
    lines = (tmp_path / "p.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2] for line in lines] == ["ab"[k] for k in stored.logits.argmax(1)]


def test_an_array_with_lengths_is_predicted_as_the_data_file(trained: Trained, tmp_path: Path) -> None:
    data = read_split(trained.data, "test", ["video"], standardise=False)
    np.save(tmp_path / "new.npy", data.arrays["video"])
    np.save(tmp_path / "lengths.npy", data.lengths["video"])
    trial = ["--trial", str(trained.trial.path)]
    files = ["--data", str(tmp_path / "new.npy"), "--lengths", str(tmp_path / "lengths.npy")]
    assert predict.main([*trial, *files, "--out", str(tmp_path / "p.csv")]) == 0
    stored = softmax(read_result(trained.trial.result).predictions["test"].logits)
    lines = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    np.testing.assert_allclose([[float(p) for p in line[2:]] for line in lines], stored, atol=2e-6)


@pytest.mark.parametrize("name", ["student.pt2", "student.onnx"])
def test_an_exported_program_equals_the_stored_logits(
    trained: Trained, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert export.main(["--trial", str(trained.trial.path), "--out", str(tmp_path / name)]) == 0
    said = capfd.readouterr()
    assert said.out.count("\n") == 1
    steps = ("tracing ", "comparing ", "predicting ")  # on a slow machine
    assert not [line for line in said.err.splitlines() if not line.startswith(steps)]
    data = read_split(trained.data, "test", ["video"], standardise=False)
    features, lengths = torch.from_numpy(data.arrays["video"]), torch.from_numpy(data.lengths["video"])
    if name.endswith("onnx"):
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(tmp_path / name)
        logits = session.run(None, {"features": features.numpy(), "lengths": lengths.numpy()})[0]
    else:
        logits = torch.export.load(tmp_path / name).module()(features, lengths).numpy()
    stored = read_result(trained.trial.result).predictions["test"].logits
    assert np.abs(logits - stored).max() < 1e-5
    assert "stored test logits reproduced" in (tmp_path / name).with_suffix(".md").read_text()


@pytest.mark.parametrize("trained", ["1 feature"], indirect=True)
@pytest.mark.parametrize(("command", "name"), [(predict, "out.csv"), (export, "out.pt2")])
def test_a_student_that_computes_other_logits_writes_nothing(
    trained: Trained,
    tmp_path: Path,
    command: Any,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def all_zero_steps_are_padding(self: Any, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        real = (features != 0).any(-1, keepdim=True)
        return self.network({self.modality: (features - self.mean) / self.std * real}).logits

    monkeypatch.setattr("mmkd.training.trained_network.RawStudent.forward", all_zero_steps_are_padding)
    data = ["--data", str(trained.data)] if command is predict else []
    assert command.main(["--trial", str(trained.trial.path), "--out", str(tmp_path / name), *data]) == 2
    said = capsys.readouterr().err
    assert "does not compute the logits in" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("out.*"))


def test_a_trial_without_test_predictions_is_checked_on_valid(lab: Any) -> None:
    student = load_student(lab.run(lab.student()).path)
    assert check_logits(student, student.model, "the student").startswith("24 stored valid logits reproduced")


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (np.full(2, 9), "length 9 of sample 0 is not in 1..8"),
        (np.full(3, 8), "not whole numbers, one for each of 2 samples"),
        (np.full(2, 2.0), "not whole numbers"),
        (np.full(2, 2), "sample 0 has values other than 0 before its last 2 steps"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], lengths: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "new.npy", np.ones((2, 8, 6), np.float32))
    np.save(tmp_path / "lengths.npy", lengths)
    trial = ["--trial", str(lab.run(lab.student()).path), "--out", str(tmp_path / "out.csv")]
    files = ["--data", str(tmp_path / "new.npy"), "--lengths", str(tmp_path / "lengths.npy")]
    assert predict.main([*trial, *files]) == 2
    assert said in capsys.readouterr().err
