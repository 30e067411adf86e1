"""Set up a run from its configuration: data, network, distillation method and teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmkd.config import Augmentation, StudentConfig, TeacherConfig
from mmkd.data import DatasetInfo
from mmkd.data.splits import hold_out
from mmkd.data.tensors import Samples, load_samples
from mmkd.distillation import load_method
from mmkd.distillation.base import DistillationMethod, Problem
from mmkd.distillation.frozen_teacher import FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.network import Network, build_teacher
from mmkd.rundir import TrialDir
from mmkd.training.building import new_student, open_data
from mmkd.training.trained_network import load_teacher


@dataclass
class Lesson:
    """Network, data, method and teacher of one run.

    `method` and `teacher` are None for a teacher; `alpha` and `beta` weigh the classification and the distillation
    loss (Eq. 1).
    """

    network: Network
    train: Samples
    valid: Samples
    info: DatasetInfo
    method: DistillationMethod | None = None
    teacher: FrozenTeacher | None = None
    alpha: float = 1.0
    beta: float = 0.0


def make_lesson(config: TeacherConfig | StudentConfig, directory: TrialDir, device: torch.device) -> Lesson:
    """Load the data and the teacher, and build the network and the method.

    Raises:
        UserError: the data or the teacher do not match the configuration.
    """
    info = open_data(config)
    if isinstance(config, TeacherConfig):
        network = build_teacher(info, config.network, config.branch).to(device)
        train, valid = (load_samples(info.path, split, info.modalities, device) for split in ("train", "valid"))
        train, _ = hold_out(train, config.training.held_out)
        return Lesson(network, train, valid, info)
    return _make_student_lesson(config, directory, info, device)


def _make_student_lesson(config: StudentConfig, directory: TrialDir, info: DatasetInfo, device: torch.device) -> Lesson:
    """See `make_lesson`."""
    distillation = config.distillation
    method_class = load_method(distillation.method)
    network, pairing = new_student(config, info)
    teacher = None
    if method_class.needs_teacher:
        if config.teacher is None:
            raise UserError(
                f"{directory.config}: method {distillation.method} needs a teacher, and the file names none"
            )
        teacher = load_teacher(directory.root, config.teacher, info, device)
    modalities = info.modalities if teacher else pairing.inputs
    train, held_out = hold_out(load_samples(info.path, "train", modalities, device), config.training.held_out)
    if teacher:
        teacher.remember(train.x, augmented=config.training.augmentation != Augmentation())
    valid = load_samples(info.path, "valid", pairing.inputs, device)
    teachers = teacher.network if teacher else None
    problem = Problem(distillation, pairing, network, teachers, train.y.cpu(), len(info.classes), held_out)
    method = method_class(problem)
    return Lesson(
        network.to(device), train, valid, info, method.to(device), teacher, distillation.alpha, distillation.beta
    )
