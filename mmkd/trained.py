"""A finished trial as a model of raw features: what prediction and export share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkd.config import StudentConfig, from_json
from mmkd.errors import UserError
from mmkd.models.network import Network
from mmkd.results import Result
from mmkd.rundir import TrialDir
from mmkd.training.building import new_student, open_data
from mmkd.training.weights import load_weights, read_finished


class RawStudent(nn.Module):
    """A trained student with its standardisation inside: raw features (B, T, F) of its modality to logits (B, C).

    Steps that are all zero are padding and stay zero, as in training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, modality: str, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network, self.modality = network, modality
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        real = (features != 0).any(-1, keepdim=True)
        standardised = (features - self.mean) / self.std * real
        logits: Tensor = self.network({self.modality: standardised}).logits
        return logits


@dataclass(frozen=True)
class TrainedStudent:
    """The model in evaluation mode, what it was trained as, its result, and the shape (T, F) and classes it knows."""

    model: RawStudent
    config: StudentConfig
    result: Result
    steps: int
    features: int
    classes: tuple[str, ...]


def load_student(directory: Path) -> TrainedStudent:
    """The trained student of a finished trial.

    Raises:
        UserError: the trial is not finished, not a student's, or its weights are not those that its result names.
    """
    place = TrialDir(directory)
    result = read_finished(place)
    config = from_json(dict(result.config), place.result)
    if not isinstance(config, StudentConfig):
        raise UserError(f"{directory}: a teacher's; name a student's trial, of rows/*/trials or rows/*/confirm")
    info = open_data(config)
    network, pairing = new_student(config, info)
    if len(pairing.inputs) > 1:
        raise UserError(f"{directory}: a multimodal student; prediction and export are for students of one modality")
    load_weights(network, place, result)
    mean, std = result.standardisation[config.primary]
    model = RawStudent(network, config.primary, torch.from_numpy(mean), torch.from_numpy(std)).eval()
    return TrainedStudent(
        model, config, result, info.steps[config.primary], info.features[config.primary], info.classes
    )
