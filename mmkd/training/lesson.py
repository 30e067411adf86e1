"""Set up a run from its configuration: device, data, network, distillation method and teacher."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkd.config import Augmentation, Run, StudentConfig, TeacherConfig, Training, derived_seed
from mmkd.data import DatasetInfo
from mmkd.data.hold_out import hold_out
from mmkd.data.tensors import Samples, epoch_batches, load_samples
from mmkd.distillation import load_method
from mmkd.distillation.base import DistillationMethod, Problem
from mmkd.distillation.frozen_teacher import FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.network import Network, build_teacher
from mmkd.provenance import gpus_given
from mmkd.rundir import TrialDir
from mmkd.terminal import printable
from mmkd.training.random_stream import RandomStream
from mmkd.training.trained_network import load_teacher, new_student, open_data


def default_device() -> torch.device:
    """A GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_torch(config: Run) -> torch.device:
    """Set threads, seed and determinism of torch, and choose the device.

    Warn if the job was given GPUs that torch does not see.

    Raises:
        UserError: device = "cuda" and there is no CUDA device.
    """
    torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but this machine shows no CUDA device; use 'auto' or 'cpu'")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "auto" and not cuda and (given := gpus_given()):
        warning = f"warning: this job was given GPUs ({given}) and torch sees none: it trains on the CPU"
        print(printable(f"{warning}; --device cuda fails instead"), file=sys.stderr, flush=True)
    # Only deterministic operations give the same bits after a resume; cuBLAS reads this before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it writes it, so filling it first is wasted time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at run time
    torch.manual_seed(config.seed)
    return torch.device("cuda" if cuda else "cpu")


@dataclass
class Lesson:
    """Network, data, method and teacher of one run.

    `method` and `teacher` are None for a teacher; `alpha` and `beta` weigh the classification and the distillation
    loss (Eq. 1). The method draws from `stream` alone, so that rows whose networks are equal share the initial student
    and the dropout of every step.
    """

    network: Network
    train: Samples
    valid: Samples
    info: DatasetInfo
    stream: RandomStream
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
    stream = RandomStream(derived_seed("method", config.seed), device)
    if isinstance(config, TeacherConfig):
        network = build_teacher(info, config.network, config.branch).to(device)
        train, valid = (load_samples(info, split, info.modalities, device) for split in ("train", "valid"))
        train, _ = hold_out(train, config.training.held_out)
        return Lesson(network, train, valid, info, stream)
    distillation = config.distillation
    method_class = load_method(distillation.method)
    network, pairing = new_student(config, info)
    teacher = None
    if method_class.needs_teacher:
        if config.teacher is None:
            raise UserError(
                f"{directory.config}: method {distillation.method} needs a teacher, and the file names none"
            )
        with stream:  # building a network draws its initial weights
            teacher = load_teacher(directory.root, config.teacher, info, device)
    modalities = info.modalities if teacher else pairing.inputs
    train, held_out = hold_out(load_samples(info, "train", modalities, device), config.training.held_out)
    if teacher:
        teacher.remember(train.x, augmented=config.training.augmentation != Augmentation())
    valid = load_samples(info, "valid", pairing.inputs, device)
    teachers = teacher.network if teacher else None
    problem = Problem(distillation, pairing, network, teachers, train.y.cpu(), len(info.classes), held_out)
    with stream:
        method = method_class(problem).to(device)
    return Lesson(
        network.to(device), train, valid, info, stream, method, teacher, distillation.alpha, distillation.beta
    )


def single_class_batches(labels: Tensor, training: Training, seed: int) -> tuple[int, int]:
    """Count the training batches that have a single class, and all batches, of labels (N,) of train."""
    single = batches = 0
    for epoch in range(training.epochs):
        for batch in epoch_batches(len(labels), training.batch_size, seed, epoch):
            single += bool((labels[batch] == labels[batch[0]]).all())
            batches += 1
    return single, batches


def warn_of_single_class_batches(config: Run, lesson: Lesson) -> None:
    """Print how many batches teach nothing, where the method compares samples of unlike classes within a batch."""
    if lesson.method is None or not lesson.method.contrasts_classes:
        return
    single, batches = single_class_batches(lesson.train.y.cpu(), config.training, config.seed)
    if single:
        print(
            f"warning: {single:,} of {batches:,} training batches have samples of a single class; L_KD is 0 there. "
            f"A larger batch_size has fewer of them",
            file=sys.stderr,
            flush=True,
        )
