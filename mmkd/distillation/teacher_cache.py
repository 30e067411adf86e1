"""Cache of a teacher's outputs on train, kept beside the teacher for later trials.

The key of a file is all that decides its bits: weights, data, samples, machine, library and threads. So a trial gets
the numbers that it would have computed; on another kind of machine it finds nothing and computes its own.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import platform
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmkd.checksum import Damaged, checksum_line, verify_checksum
from mmkd.config import digest
from mmkd.files import write_atomically
from mmkd.models.network import Outputs
from mmkd.provenance import source_digest


@dataclass(frozen=True)
class OutputStore:
    """A teacher's directory; `weights` and `data` are the checksums of its weights and of its data set."""

    directory: Path
    weights: str
    data: str

    def fetch(
        self, x: Mapping[str, Tensor], view: Collection[str], device: torch.device, compute: Callable[[], Outputs]
    ) -> Outputs:
        """Outputs for x[modality] (N, T_m, F_m) with the modalities of `view`: read, or computed and kept.

        A file that is damaged or does not fit is replaced. If none can be written, warn.
        """
        facts = digest({**self._facts(x, device), "view": sorted(view)})
        path = self.directory / f"outputs-{facts[:16]}.pt"
        kept = _read(path, facts, len(next(iter(x.values()))), device)
        if kept is not None:
            return kept
        outputs = compute()
        try:
            _write(path, facts, outputs)
        except OSError as error:
            _warn(f"the teacher's outputs are not kept: {error}")
        return outputs

    def _facts(self, x: Mapping[str, Tensor], device: torch.device) -> dict[str, str | int]:
        """Everything that decides the outputs' bits, except the view."""
        return {
            "weights": self.weights,
            "data": self.data,
            "samples": _samples_digest(x),
            "types": str([str(value.dtype) for value in x.values()]),
            "torch": torch.__version__,
            "code": source_digest(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "processor": processor(device),
        }


def processor(device: torch.device) -> str:
    """Name of the processor: another kind rounds the same sums differently."""
    if device.type == "cuda":
        return (
            f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    kinds = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    known = [line for line in first if line.startswith(kinds)]
    return "\n".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *known])


def _samples_digest(x: Mapping[str, Tensor]) -> str:
    """Identify samples and their order by a hash of each one's sums over time."""
    found = hashlib.sha256()
    for modality, value in x.items():
        found.update(f"{modality} {tuple(value.shape)}".encode())
        found.update(value.sum(1).cpu().numpy().tobytes())
    return found.hexdigest()


def _read(path: Path, facts: str, samples: int, device: torch.device) -> Outputs | None:
    """Read the outputs in the file; None if there is no file, or none to trust."""
    try:
        content = io.BytesIO(verify_checksum(path.read_bytes()))
        found = torch.load(content, map_location=device, weights_only=True)
        if found["facts"] != facts:
            raise Damaged("it belongs to something else")
        outputs = Outputs(found["logits"], found["penultimate"], {}, {})
        if not len(outputs.logits) == len(outputs.penultimate) == samples:
            raise Damaged(f"it has not {samples} samples")
        return outputs
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        _warn(f"{path}: computed again, because the file cannot be used: {str(error).partition(chr(10))[0]}")
        return None


def _write(path: Path, facts: str, outputs: Outputs) -> None:
    made = io.BytesIO()
    torch.save({"facts": facts, "logits": outputs.logits.cpu(), "penultimate": outputs.penultimate.cpu()}, made)
    content = made.getvalue()
    write_atomically(path, lambda temporary: temporary.write_bytes(content + checksum_line(content)))


def _warn(what: str) -> None:
    print(f"warning: {what}", file=sys.stderr, flush=True)
