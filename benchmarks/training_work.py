"""The work that benchmarks/training.py times: networks, data and methods of each row, and whether both ways agree."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import training_plain as plain
from torch import Tensor

from mmkd.config import Augmentation, DataSource, Distillation, Network, StudentConfig, Training
from mmkd.data import DatasetInfo, Split, read_info, write_dataset
from mmkd.data.synthetic import SIZES
from mmkd.data.tensors import Samples, load_samples
from mmkd.distillation import complete, load_method
from mmkd.distillation.base import Problem
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.network import build_student, build_teacher
from mmkd.models.pairings import resolve_pairing
from mmkd.presets import PRESETS
from mmkd.rundir import TrialDir
from mmkd.training.evaluation import predict
from mmkd.training.lesson import Lesson
from mmkd.training.random_stream import RandomStream
from mmkd.training.trainer import Trainer

Way = Literal["plain", "mmkd"]


@dataclass(frozen=True)
class Row:
    """One kind of step: `learner` is what is trained or, with `inference`, run without gradients."""

    learner: Literal["teacher", "student"] = "student"
    method: str = "no_kd"
    level: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    pairing: str = "others"
    inference: bool = False


ROWS = {
    "teacher": Row("teacher"),
    "no_kd": Row(),
    "kd": Row(method="kd"),
    "crd_final": Row(method="crd", level="final"),
    "crd_penultimate": Row(method="crd", level="penultimate"),
    "crd_post_attention": Row(method="crd", level="post_attention"),
    "crd_attention_maps": Row(method="crd", level="attention_maps"),
    "edam_down": Row(method="edam"),
    "edam_up": Row(method="edam", settings={"size": "up"}),
    "attention_distance": Row(method="attention_distance"),
    "msd": Row(method="msd", settings={"weighting": "instance"}, pairing="multimodal"),
    "teacher_inference": Row("teacher", inference=True),
    "student_inference": Row(inference=True),
}


DEFAULTS = Training()
SEQUENCES = {name: {m: (steps, width) for m, (steps, width, _) in size.shapes.items()} for name, size in SIZES.items()}
"""Steps and features of each modality, the primary one first: of the synthetic data sets, and of docs/utd-mhad.md."""
SEQUENCES["utd_mhad"] = {"accelerometer": (32, 3), "gyroscope": (32, 3), "skeleton": (16, 60)}


@dataclass(frozen=True)
class Shape:
    """Sizes of sequences (a key of `SEQUENCES`) and networks, and the recipe; `multimodal` is the MSD student."""

    data: str
    teacher: Network
    student: Network
    multimodal: Network
    training: Training = DEFAULTS

    @property
    def primary(self) -> str:
        """The student's modality."""
        return next(iter(SEQUENCES[self.data]))


def profile(name: str, data: str) -> Shape:
    """Networks and recipe of one of mmkd's own profiles."""
    file = Path(__file__).parents[1] / "sweeps" / "profiles" / f"{name}.toml"
    found = tomllib.loads(file.read_text())
    networks = (Network.model_validate(found[role]) for role in ("teacher", "student"))
    return Shape(data, *networks, _MULTIMODAL, Training.model_validate(found["training"]))


_MULTIMODAL = Network(width=12, heads=4, layers=1, fusion_layers=1)
SHAPES = {
    "small": Shape("small", Network(), Network(), _MULTIMODAL),
    "mosei": Shape(
        "mosei",
        Network.model_validate(PRESETS["paper_teacher"]),
        Network.model_validate(PRESETS["paper_student"]),
        _MULTIMODAL,
    ),
}


def make_data(path: Path, shape: Shape, samples: int) -> None:
    """A file of noise with the shape's steps and features; `samples` in train."""
    rng, splits = np.random.default_rng(0), {}
    for name, size in {"train": samples, "valid": samples, "test": 7}.items():
        arrays = {m: rng.standard_normal((size, *each), np.float32) for m, each in SEQUENCES[shape.data].items()}
        splits[name] = Split(arrays=arrays, labels=np.arange(size) % 7)
    names = [f"class {k}" for k in range(7)]
    vectors = {m: 3 for m, (_, features) in SEQUENCES[shape.data].items() if features % 3 == 0}
    write_dataset(path, splits, classes=names, source="synthetic (noise)", license="CC0-1.0", vectors=vectors)


def make_lesson(row: Row, shape: Shape, path: Path, device: torch.device, *, dropout: bool = True) -> Lesson:
    """What the row trains, on the data at `path`; the teacher is not trained. Without `dropout` nothing is random."""
    torch.manual_seed(0)
    info = read_info(path)
    resolved = resolve_pairing(row.pairing, shape.primary, info.modalities)
    teacher = build_teacher(info, shape.teacher, resolved.branch).to(device)
    if row.learner == "teacher":
        lesson = Lesson(teacher, *_samples(info, info.modalities, device), info, RandomStream(0, device))
    else:
        config = complete(Distillation(method=row.method, level=row.level, settings=row.settings))
        method_class = load_method(row.method)
        sizes = shape.multimodal if row.pairing == "multimodal" else shape.student
        student = build_student(info, sizes, shape.primary, resolved, method_class.proxies(config)).to(device)
        needed = info.modalities if method_class.needs_teacher else resolved.inputs
        train, valid = _samples(info, needed, device)
        frozen = FrozenTeacher(teacher)
        frozen.remember(train.x, augmented=shape.training.augmentation != Augmentation())
        method = method_class(Problem(config, resolved, student, teacher, train.y.cpu(), len(info.classes)))
        wanted = frozen if method_class.needs_teacher else None
        lesson = Lesson(student, train, valid, info, RandomStream(0, device), method.to(device), wanted, 1.0, 1.0)
    lesson.network.train(dropout)
    return lesson


def _samples(info: DatasetInfo, modalities: tuple[str, ...], device: torch.device) -> tuple[Any, Any]:
    return load_samples(info, "train", modalities, device), load_samples(info, "valid", modalities, device)


def make_trainer(lesson: Lesson, folder: Path, training: Training) -> Trainer:
    """mmkd's own trainer; of the configuration it reads the recipe alone."""
    config = StudentConfig(
        data=DataSource(path=str(lesson.info.path), fingerprint=lesson.info.fingerprint),
        network=Network(),
        training=training,
        seed=0,
        primary=lesson.info.modalities[0],
        pairing="others",
        distillation=Distillation(method="no_kd"),
    )
    return Trainer(config, lesson, TrialDir(folder), None, lambda: None, lambda: False)


def make_step(
    row: Row, way: Way, lesson: Lesson, folder: Path, batch: int, training: Training = DEFAULTS
) -> Callable[[], object]:
    """What is timed: one step on the next batch of train; the plain way knows no augmentation."""
    device = lesson.train.y.device
    generator = torch.Generator().manual_seed(0)

    def index() -> Tensor:
        return torch.randperm(len(lesson.train), generator=generator)[:batch].to(device)

    if row.inference:
        lesson.network.eval()
        if way == "mmkd":
            return lambda: predict(lesson.network, _first(lesson, index()))
        batches = plain.Hdf5Batches(lesson.info.path, "train", list(lesson.train.x), device)
        return torch.no_grad()(lambda: plain.run(lesson.network, batches.read(index())[0]).logits.cpu())
    if way == "mmkd":
        trainer = make_trainer(lesson, folder, training)
        return lambda: trainer._step(_batch(lesson, index()))
    plain_trainer = plain.PlainTrainer(lesson, training.learning_rate, training.clip)
    return lambda: plain_trainer.step(index())


def _first(lesson: Lesson, index: Tensor) -> Samples:
    x, y = lesson.train.at(index)
    return Samples(x, y, None, [])


def _batch(lesson: Lesson, index: Tensor) -> Batch:
    return Batch(*lesson.train.at(index), index)


def agreement(row: Row, lesson: Lesson, folder: Path, batch: int) -> dict[str, float]:
    """Relative differences of mmkd's way to the plain one: of the loss, and of the whole gradient in 2-norm.

    `lesson` is without dropout. Both ways begin from the same state, of the method's random stream too.
    """
    index = torch.arange(batch, device=lesson.train.y.device)
    sample = _batch(lesson, index)
    if row.inference:
        with torch.no_grad():
            one, other = plain.run(lesson.network, sample.x).logits, lesson.network(sample.x).logits
        return {"logits": float((one - other).norm() / one.norm())}
    trainer = make_trainer(lesson, folder, DEFAULTS)
    state = {name: value.clone() for name, value in trainer.modules.state_dict().items()}
    losses, gradients = [], []

    def plain_loss() -> Tensor:
        with lesson.stream:
            return plain.loss_of(lesson, sample)

    for evaluate in (plain_loss, lambda: trainer._loss(sample)[0]):
        trainer.modules.load_state_dict(state)
        lesson.stream = RandomStream(1, lesson.train.y.device)
        loss = evaluate()
        found = torch.autograd.grad(loss, trainer.parameters, allow_unused=True)
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([torch.zeros(1) if g is None else g.flatten().cpu() for g in found]))
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    return {"loss": abs(losses[1] - losses[0]) / abs(losses[0]), "gradient": float(difference)}
