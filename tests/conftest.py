"""A small data set, configurations that train on it in a moment, and a teacher trained once a session."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from mmkd.config import StudentConfig, TeacherConfig
    from mmkd.result_file import Result
    from mmkd.rundir import Root, TrialDir

SIZES = {"train": 48, "valid": 24, "test": 24}
SHAPES = {"video": (8, 6), "audio": (6, 4), "text": (4, 3)}
NETWORK = {"width": 8, "heads": 2, "layers": 2, "fusion_layers": 1}
TRAINING = {"epochs": 3, "batch_size": 20, "learning_rate": 3e-3}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a real Slurm come first: one process waits for Slurm while the others compute."""
    items.sort(key=lambda item: "cluster_folder" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """Garbage is not looked for among the half a million objects that were imported: that takes 0.2 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """One thread, and what a trial sets for its whole process is set back."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials in the test's own process take one thread: several tests at once would fight over the cores."""
    monkeypatch.setattr("slurm.local_backend.usable_cores", lambda: 1)


@dataclass(frozen=True)
class Lab:
    """A root of its own, the shared data file, and runs that take a fraction of a second."""

    root: Root
    data: Path
    fingerprint: str

    def _common(self, changes: dict[str, Any]) -> dict[str, Any]:
        training = {**TRAINING, **changes.pop("training", {})}
        network = {**NETWORK, **changes.pop("network", {})}
        data = {"path": str(self.data), "fingerprint": self.fingerprint}
        return {"data": data, "network": network, "training": training, "seed": 0, "device": "cpu", **changes}

    def teacher(self, **changes: Any) -> TeacherConfig:
        """A teacher's configuration; `training` and `network` are merged into small ones."""
        from mmkd.config import TeacherConfig

        return TeacherConfig.model_validate(self._common(changes))

    def student(self, method: str = "no_kd", **changes: Any) -> StudentConfig:
        """A student's configuration, taught by the session's teacher where the method needs one."""
        from mmkd.config import Distillation, StudentConfig
        from mmkd.distillation import complete, load_method

        keys = [key for key in ("level", "settings", "alpha", "beta", "temperature") if key in changes]
        distillation = complete(Distillation(method=method, **{key: changes.pop(key) for key in keys}))
        teacher = self.teacher() if load_method(method).needs_teacher else None
        student = {"primary": "video", "pairing": "others", "distillation": distillation, "teacher": teacher}
        return StudentConfig.model_validate(self._common({**student, **changes}))

    def place(self, config: TeacherConfig | StudentConfig, number: int = 0) -> TrialDir:
        """A trial's directory with `config` in it, as the controller leaves it."""
        from mmkd.config import identity, to_json
        from mmkd.files import write_json

        is_teacher = config.role == "teacher"
        place = self.root.teacher(identity(config)) if is_teacher else self.root.row("row", "0" * 8).trial(number)
        place.path.mkdir(parents=True, exist_ok=True)
        write_json(place.config, to_json(config))
        return place

    def run(self, config: TeacherConfig | StudentConfig, number: int = 0, **options: Any) -> TrialDir:
        """Where `config` was run, to its end or to where it was told to end."""
        from mmkd.trial import run_trial

        place = self.place(config, number)
        run_trial(config, place.path, **options)
        return place


def read(place: TrialDir) -> Result:
    from mmkd.result_file import read_result

    return read_result(place.result)


def numbers(place: TrialDir) -> dict[str, Any]:
    """All that a finished trial says, less times: to be equal bit for bit between two runs of one configuration."""
    import torch

    result = read(place)
    lines = [json.loads(line) for line in place.metrics.read_text().splitlines()]
    weights = torch.load(place.weights, weights_only=True)
    return {
        "status": (result.status, result.reason, result.best_epoch, result.epochs, result.parameters),
        "metrics": result.metrics,
        "curves": result.curves,
        "predictions": {s: (p.logits.tobytes(), p.labels.tobytes(), p.ids) for s, p in result.predictions.items()},
        "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
        "checksum": result.weights_sha256,
        "lines": [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in lines],
    }


@pytest.fixture(scope="session")
def numbers_of() -> Any:
    """See `numbers`."""
    return numbers


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Three unaligned modalities, three classes; each modality shows a class by its mean, under noise.

    There are eight groups, of 12 samples each.
    """
    from mmkd.data import Split, write_dataset

    rng = np.random.default_rng(0)
    splits = {}
    for name, size in SIZES.items():
        labels = np.arange(size) % 3
        rng.shuffle(labels)
        arrays = {
            m: (rng.normal(size=(size, *shape)) + 0.7 * rng.permuted(labels[:, None, None] - 1, axis=1)).astype("f4")
            for m, shape in SHAPES.items()
        }
        splits[name] = Split(arrays=arrays, labels=labels, groups=[f"{name} {n // 12}" for n in range(size)])
    path = tmp_path_factory.mktemp("data") / "small.h5"
    facts = {"classes": ["low", "middle", "high"], "source": "synthetic (tests)", "license": "CC0-1.0"}
    return path, write_dataset(path, splits, vectors={"video": 3, "audio": 2}, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def session_root(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, str]) -> Root:
    """A root that holds the trained teacher."""
    from mmkd.rundir import Root

    root = Root(tmp_path_factory.mktemp("session"))
    lab = Lab(root, *small_data)
    lab.run(lab.teacher())
    return root


@pytest.fixture
def lab(tmp_path: Path, small_data: tuple[Path, str], session_root: Root) -> Lab:
    """A fresh root with the session's teacher in it."""
    from mmkd.rundir import Root

    shutil.copytree(session_root.path, tmp_path / "root")
    return Lab(Root(tmp_path / "root"), *small_data)
