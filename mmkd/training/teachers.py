"""Trained teachers, found by what they are."""

from __future__ import annotations

import torch

from mmkd.config import TeacherConfig, identity
from mmkd.data import DatasetInfo
from mmkd.distillation.base import FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.network import build_teacher
from mmkd.rundir import Root
from mmkd.training.kept_outputs import OutputStore
from mmkd.training.weights import load_weights, read_finished


def load_teacher(root: Root, config: TeacherConfig, info: DatasetInfo, device: torch.device) -> FrozenTeacher:
    """The teacher that `config` describes, with its trained weights.

    Raises:
        UserError: it is not trained, it diverged, or its weights are not those that its result names.
    """
    place = root.teacher(identity(config))
    try:
        result = read_finished(place)
    except UserError as error:
        raise UserError(
            f"no teacher: {error}; train it with 'python -m mmkd.trial {place.path}' or sweeps/launch.py"
        ) from None
    network = build_teacher(info, config.network, config.branch)
    load_weights(network, place, result)
    return FrozenTeacher(network.to(device), OutputStore(place.path, result.weights_sha256, info.fingerprint))
