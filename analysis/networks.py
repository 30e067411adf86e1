"""The trained networks behind runs, as they were after training: for attention maps and missing modalities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mmkd.config import StudentConfig, TeacherConfig, from_json
from mmkd.data import DatasetInfo
from mmkd.models.network import Network, build_teacher
from mmkd.models.pairings import Pairing
from mmkd.rundir import TrialDir
from mmkd.training.building import new_student, open_data
from mmkd.training.weights import load_weights, read_finished


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode and without gradients, on its device; what it was trained as and on.

    `inputs` are the modalities that it is given; `pairing` is a student's, None for a teacher.
    """

    network: Network
    config: TeacherConfig | StudentConfig
    info: DatasetInfo
    inputs: tuple[str, ...]
    pairing: Pairing | None


def use_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_network(directory: Path, device: torch.device) -> Trained:
    """The network of a finished trial: a teacher, or a student of one modality or of several.

    Raises:
        UserError: no finished trial; or its weights or its data are gone, or are not those that it names.
    """
    place = TrialDir(directory)
    result = read_finished(place)
    config = from_json(dict(result.config), place.result)
    info = open_data(config)
    pairing: Pairing | None = None
    if isinstance(config, TeacherConfig):
        network = build_teacher(info, config.network, config.branch)
    else:
        network, pairing = new_student(config, info)
    load_weights(network, place, result)
    inputs = info.modalities if pairing is None else pairing.inputs
    return Trained(network.to(device).eval().requires_grad_(False), config, info, inputs, pairing)
