"""Load a trained network: the only loader, for teachers in training, prediction, export and analysis."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkd.config import Run, StudentConfig, TeacherConfig, from_json, identity
from mmkd.data import DatasetInfo, divide, read_info
from mmkd.data.staging import stage
from mmkd.distillation import load_method
from mmkd.distillation.frozen_teacher import FrozenTeacher
from mmkd.distillation.teacher_cache import OutputStore
from mmkd.errors import UserError
from mmkd.models.network import Network, build_student, build_teacher
from mmkd.models.pairings import Pairing, resolve_pairing
from mmkd.result_file import Result, ResultError, Status, read_result, weights_checksum
from mmkd.rundir import Root, TrialDir

CPU = torch.device("cpu")


def read_finished(directory: TrialDir) -> Result:
    """Read the result of a completed trial.

    Raises:
        UserError: there is none, or it diverged or was pruned.
    """
    try:
        result = read_result(directory.result, predictions=False)
    except (FileNotFoundError, ResultError) as error:
        raise UserError(f"{directory.path}: no finished trial here ({error})") from None
    if result.status is not Status.COMPLETE:
        raise UserError(f"{directory.path}: this trial is {result.status} ({result.reason})")
    return result


def load_weights(network: Network, directory: TrialDir, result: Result) -> None:
    """Load the trial's weights into `network`.

    Raises:
        UserError: they are missing, differ from those that `result` names, or do not fit.
    """
    remedy = "remove the directory and launch again"
    try:
        checksum = weights_checksum(directory)
    except FileNotFoundError:
        raise UserError(f"{directory.weights}: missing, although {directory.result.name} is there; {remedy}") from None
    if checksum != result.weights_sha256:
        raise UserError(f"{directory.weights}: not the weights that {directory.result.name} names; {remedy}")
    try:
        network.load_state_dict(torch.load(directory.weights, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{directory.weights}: does not fit its configuration ({str(error).splitlines()[0]})") from None


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode, without gradients, with its configuration, result and data set.

    `inputs` are the modalities it takes; `pairing` is a student's, None for a teacher.
    """

    network: Network
    config: TeacherConfig | StudentConfig
    result: Result
    info: DatasetInfo
    inputs: tuple[str, ...]
    pairing: Pairing | None


def load_network(directory: Path, device: torch.device = CPU) -> TrainedNetwork:
    """Load the network of a finished trial: a teacher, or a student of one or several modalities.

    Raises:
        UserError: the trial is not finished, or its weights or its data are missing or have changed.
    """
    trial = TrialDir(directory)
    result = read_finished(trial)
    config = from_json(dict(result.config), trial.result)
    return _load(trial, result, config, open_data(config), device)


def load_teacher(root: Root, config: TeacherConfig, info: DatasetInfo, device: torch.device) -> FrozenTeacher:
    """Load the trained teacher that `config` describes, for distillation on the data set `info`.

    Raises:
        UserError: it is not trained, it diverged, or its weights differ from those that its result names.
    """
    trial = root.teacher(identity(config))
    try:
        result = read_finished(trial)
    except UserError as error:
        raise UserError(
            f"no teacher: {error}; train it with 'python -m mmkd.trial {trial.path}' or mmkd launch"
        ) from None
    network = _load(trial, result, config, info, device).network
    return FrozenTeacher(network, OutputStore(trial.path, result.weights_sha256, info.fingerprint))


def _load(
    trial: TrialDir,
    result: Result,
    config: TeacherConfig | StudentConfig,
    info: DatasetInfo,
    device: torch.device | str,
) -> TrainedNetwork:
    pairing: Pairing | None = None
    if isinstance(config, TeacherConfig):
        network = build_teacher(info, config.network, config.branch)
    else:
        network, pairing = new_student(config, info)
    load_weights(network, trial, result)
    inputs = info.modalities if pairing is None else pairing.inputs
    return TrainedNetwork(network.to(device).eval().requires_grad_(False), config, result, info, inputs, pairing)


class RawStudent(nn.Module):
    """A trained student with its standardisation inside: raw features (B, T, F) of its modality to logits (B, C).

    The lengths (B,) int64 count the real steps at the end of each sequence; what stands before them is padding and
    becomes 0, as in training. Steps that are all zero are data like any other where the length says so.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, modality: str, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network, self.modality = network, modality
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """See the class."""
        steps = features.shape[1]
        real = torch.arange(steps, device=features.device) >= steps - lengths[:, None]
        standardised = torch.where(real[..., None], (features - self.mean) / self.std, 0.0)
        logits: Tensor = self.network({self.modality: standardised}).logits
        return logits


@dataclass(frozen=True)
class TrainedStudent:
    """A student in evaluation mode: its trial, configuration, result and data set, and its input shape (T, F)."""

    model: RawStudent
    directory: TrialDir
    config: StudentConfig
    result: Result
    info: DatasetInfo
    steps: int
    features: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return self.info.classes


def load_student(directory: Path) -> TrainedStudent:
    """Load the student of a finished trial, with its standardisation.

    Raises:
        UserError: the trial is not finished, not a student's, or its weights differ from those that its result names.
    """
    trained = load_network(directory)
    config, result, info = trained.config, trained.result, trained.info
    if not isinstance(config, StudentConfig):
        raise UserError(f"{directory}: a teacher's; name a student's trial, of rows/*/trials or rows/*/confirm")
    if len(trained.inputs) > 1:
        raise UserError(f"{directory}: a multimodal student; prediction and export are for students of one modality")
    mean, std = result.standardisation[config.primary]
    model = RawStudent(trained.network, config.primary, torch.from_numpy(mean), torch.from_numpy(std)).eval()
    steps, features = info.steps[config.primary], info.features[config.primary]
    return TrainedStudent(model, TrialDir(directory), config, result, info, steps, features)


def open_data(config: Run) -> DatasetInfo:
    """Open the configuration's data set, or its copy on this node's disk; describe it with the parts of its split.

    Raises:
        UserError: the file cannot be read, or its content has changed, or its groups have and the split is drawn.
    """
    info = read_info(config.data.path)
    if info.fingerprint != config.data.fingerprint:
        raise UserError(
            f"{config.data.path}: fingerprint {info.fingerprint[:12]}, but the trial was made for "
            f"{config.data.fingerprint[:12]}: the data set has changed"
        )
    return divide(stage(info), config.split)


def new_student(config: StudentConfig, info: DatasetInfo) -> tuple[Network, Pairing]:
    """Build the configuration's untrained student; return it with its pairing.

    Raises:
        UserError: an unknown method or pairing.
    """
    pairing = resolve_pairing(config.pairing, config.primary, info.modalities)
    proxies = load_method(config.distillation.method).proxies(config.distillation)
    return build_student(info, config.network, config.primary, pairing, proxies), pairing
