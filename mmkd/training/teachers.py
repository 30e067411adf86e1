"""Trained teachers, found by what they are."""

from __future__ import annotations

import hashlib
import pickle

import torch

from mmkd.config import TeacherConfig, identity
from mmkd.data import DatasetInfo
from mmkd.distillation.base import FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.network import build_teacher
from mmkd.results import ResultError, Status, read_result
from mmkd.rundir import Root


def load_teacher(root: Root, config: TeacherConfig, info: DatasetInfo, device: torch.device) -> FrozenTeacher:
    """The teacher that `config` describes, with its trained weights.

    Raises:
        UserError: it is not trained, it diverged, or its weights are not those that its result names.
    """
    directory = root.teacher(identity(config))
    try:
        result = read_result(directory.result, predictions=False)
        if result.status is not Status.COMPLETE:
            raise UserError(f"{directory.path}: this teacher is {result.status} ({result.reason})")
        content = directory.weights.read_bytes()
    except (FileNotFoundError, ResultError) as error:
        raise UserError(
            f"{directory.path}: no trained teacher here ({error}); train it with "
            f"'python -m mmkd.trial {directory.path}' or through sweeps/launch.py"
        ) from None
    if hashlib.sha256(content).hexdigest() != result.weights_sha256:
        raise UserError(f"{directory.weights}: not the weights that {directory.result.name} names; remove the folder")
    network = build_teacher(info, config.network, config.branch)
    try:
        network.load_state_dict(torch.load(directory.weights, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{directory.weights}: does not fit its configuration ({str(error).splitlines()[0]})") from None
    return FrozenTeacher(network.to(device))
