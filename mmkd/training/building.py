"""Open a configuration's data set and build its student's network."""

from __future__ import annotations

from mmkd.config import Run, StudentConfig
from mmkd.data import DatasetInfo, read_info
from mmkd.data.staging import stage
from mmkd.distillation import load_method
from mmkd.errors import UserError
from mmkd.models.network import Network, build_student
from mmkd.models.pairings import Pairing, resolve_pairing


def open_data(config: Run) -> DatasetInfo:
    """Open the configuration's data set, or its copy on this node's disk; return the description.

    Raises:
        UserError: the file cannot be read, or its content has changed.
    """
    info = read_info(config.data.path)
    if info.fingerprint != config.data.fingerprint:
        raise UserError(
            f"{config.data.path}: fingerprint {info.fingerprint[:12]}, but the trial was made for "
            f"{config.data.fingerprint[:12]}: the data set has changed"
        )
    return stage(info)


def new_student(config: StudentConfig, info: DatasetInfo) -> tuple[Network, Pairing]:
    """Build the configuration's untrained student; return it with its pairing.

    Raises:
        UserError: an unknown method or pairing.
    """
    pairing = resolve_pairing(config.pairing, config.primary, info.modalities)
    proxies = load_method(config.distillation.method).proxies(config.distillation)
    return build_student(info, config.network, config.primary, pairing, proxies), pairing
