"""The weights that a finished trial leaves: written with a checksum, read only if it is right."""

from __future__ import annotations

import hashlib
import pickle

import torch

from mmkd.errors import UserError
from mmkd.models.network import Network
from mmkd.results import Result, ResultError, Status, read_result
from mmkd.rundir import TrialDir


def read_finished(place: TrialDir) -> Result:
    """The result of a trial that completed.

    Raises:
        UserError: there is none, or it diverged or was pruned.
    """
    try:
        result = read_result(place.result, predictions=False)
    except (FileNotFoundError, ResultError) as error:
        raise UserError(f"{place.path}: no finished trial here ({error})") from None
    if result.status is not Status.COMPLETE:
        raise UserError(f"{place.path}: this trial is {result.status} ({result.reason})")
    return result


def load_weights(network: Network, place: TrialDir, result: Result) -> None:
    """Put the trial's weights into `network`.

    Raises:
        UserError: they are missing, not those that `result` names, or do not fit.
    """
    try:
        content = place.weights.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{place.weights}: missing, although {place.result.name} is there; remove the folder, and launch again"
        ) from None
    if hashlib.sha256(content).hexdigest() != result.weights_sha256:
        raise UserError(
            f"{place.weights}: not the weights that {place.result.name} names; remove the folder, and launch again"
        )
    try:
        network.load_state_dict(torch.load(place.weights, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{place.weights}: does not fit its configuration ({str(error).splitlines()[0]})") from None
