"""Teacher and student: the same network, fed by the modalities themselves or by proxies of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.config import Network as NetworkConfig
from mmkd.config import Precision
from mmkd.data import DatasetInfo
from mmkd.models.attention import Embedding, Stack, Tapped, Taps, mult_mask
from mmkd.models.dropout import Dropout
from mmkd.models.pairings import Pairing, crossmodal_stacks, ends_of, fusion_name, is_fusion, stack_name

Proxies = Literal["down", "up"]


@dataclass
class Outputs:
    """Logits (B, C), the last hidden layer (B, H), and the tapped results and their taps, by stack name."""

    logits: Tensor
    penultimate: Tensor
    tapped: dict[str, Tapped]
    taps: Mapping[str, Taps]


class Projection(nn.Module):
    """Conv1d along time from one input modality (B, T, F) to (B, T', D), brought to `steps` first if given."""

    def __init__(
        self, info: DatasetInfo, config: NetworkConfig, modality: str, kernel: int, stride: int = 1, steps: int = 0
    ) -> None:
        super().__init__()
        self.modality, self.steps = modality, steps
        self.projected_steps = (steps or info.steps[modality]) // stride
        padding = "same" if stride == 1 else 0
        features = info.features[modality]
        self.convolution = nn.Conv1d(features, config.width, kernel, stride, padding, bias=config.conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x.transpose(1, 2)
        if self.steps and self.steps != x.shape[-1]:
            x = F.interpolate(x, self.steps, mode="linear", align_corners=False)
        projected: Tensor = self.convolution(x)
        return projected.transpose(1, 2)


class Network(nn.Module):
    """Projections, first-stage stacks, a second stage if `fused`, readout and head.

    With `fused` (teachers, and the students of the pairings `complete` and `multimodal`) the stacks that share a query
    are concatenated and go through one self-attention stack of their joint width; else each stack is read out by
    itself. Readout: the last time step, or the mean over steps; all readouts are concatenated before the head.
    """

    def __init__(
        self,
        projections: Mapping[str, Projection],
        stacks: Collection[tuple[str, str]],
        fused: bool,
        config: NetworkConfig,
        classes: int,
    ) -> None:
        super().__init__()
        self.stack_ends, self.readout = tuple(stacks), config.readout
        # Prefixed, because a modality may have the name of an attribute of ModuleDict, such as `type`.
        self.projections = nn.ModuleDict({f"to {modality}": projection for modality, projection in projections.items()})
        queries = list(dict.fromkeys(query for _, query in stacks)) if fused else []
        groups = {query: sum(q == query for _, q in stacks) * config.width for query in queries}
        steps = {modality: projection.projected_steps for modality, projection in projections.items()}
        self.stacks = nn.ModuleDict(
            {
                stack_name(source, query): _stack(config, config.width, config.layers, steps, source, query)
                for source, query in stacks
            }
        )
        self.fusions = nn.ModuleDict(
            {
                fusion_name(query): _stack(config, width, config.fusion_layers, steps, None, query)
                for query, width in groups.items()
            }
        )
        widths = {f"to {modality}": (count, config.width) for modality, count in steps.items()}
        widths |= {fusion_name(query): (steps[query], width) for query, width in groups.items()}
        self.embeddings = nn.ModuleDict({name: Embedding(*size) for name, size in widths.items()})
        hidden = sum(groups.values()) if fused else len(self.stack_ends) * config.width
        self.head = Head(hidden, classes, config)

    def forward(self, x: Mapping[str, Tensor], taps: Mapping[str, Taps] | None = None) -> Outputs:
        """Outputs for x[modality] (B, T_m, F_m), tapping the stacks that `taps` names."""
        taps = taps or {}
        sequences = {m: self._sequence(m, projection, x) for m, projection in self.by_modality().items()}
        read_last = self.readout == "last"
        tapped: dict[str, Tapped] = {}
        outputs: list[tuple[str, Tensor]] = []
        for source, query in self.stack_ends:
            name = stack_name(source, query)
            last_only = read_last and not self.fusions
            output, tapped[name] = self.stacks[name](
                sequences[query], sequences[source], last_only=last_only, taps=taps.get(name)
            )
            outputs.append((query, output))
        readouts = [output for _, output in outputs]
        if self.fusions:
            readouts = []
            for name, fusion in self.fusions.items():
                joined = torch.cat([output for query, output in outputs if fusion_name(query) == name], -1)
                joined = self.embeddings[name](joined)
                output, tapped[name] = fusion(joined, joined, last_only=read_last, taps=taps.get(name))
                readouts.append(output)
        features = torch.cat([r[:, -1] if read_last else r.mean(1) for r in readouts], -1)
        logits, penultimate = self.head(features)
        return Outputs(logits, penultimate, {name: tapped[name] for name in taps}, taps)

    def tap(self, x: Mapping[str, Tensor], taps: Mapping[str, Taps]) -> dict[str, Tapped]:
        """The tapped results of the stacks that `taps` names; only what these need is run.

        For first-stage stacks these are the stacks themselves, each cut in its last layer after the tap.
        """
        if any(is_fusion(name) for name in taps):
            return self(x, taps).tapped  # type: ignore[no-any-return]
        needed = {modality for name in taps for modality in ends_of(name)}
        sequences = {m: self._sequence(m, p, x) for m, p in self.by_modality().items() if m in needed}
        return {
            name: self.stack(name).tap(sequences[ends_of(name)[1]], sequences[ends_of(name)[0]], wanted)
            for name, wanted in taps.items()
        }

    def _sequence(self, modality: str, projection: Projection, x: Mapping[str, Tensor]) -> Tensor:
        """The embedded sequence (B, T, D) of a modality, which its stacks share."""
        embedded: Tensor = self.embeddings[f"to {modality}"](projection(x[projection.modality]))
        return embedded

    def stack(self, name: str) -> Stack:
        """The stack called `name`."""
        found = self.fusions[name] if is_fusion(name) else self.stacks[name]
        assert isinstance(found, Stack)
        return found

    def map_shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of the named stack's attention maps."""
        source, query = ends_of(name)
        steps = {modality: projection.projected_steps for modality, projection in self.by_modality().items()}
        return steps[query], steps[source]

    def by_modality(self) -> dict[str, Projection]:
        """The projections by the modality that they project or stand in for."""
        return {n.removeprefix("to "): p for n, p in self.projections.items() if isinstance(p, Projection)}


def _stack(
    config: NetworkConfig, width: int, layers: int, steps: Mapping[str, int], source: str | None, query: str
) -> Stack:
    """A stack with queries of `query` and keys of `source` (None: the second stage, whose keys are its queries)."""
    key = query if source is None else source
    mask = mult_mask(steps[query], steps[key]) if config.mask == "mult" else None
    updated = key == query and config.self_attention == "updated"
    return Stack(width, config.heads, layers, config.dropout.in_stack(source), mask, updated=updated)


class Head(nn.Module):
    """`plain`: W3 relu(W1 h). `residual` (MulT's): W3 z with z = W2 relu(W1 h) + h. Dropout after the relu."""

    def __init__(self, hidden: int, classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.first = nn.Linear(hidden, hidden)
        self.second = nn.Linear(hidden, hidden) if config.head == "residual" else None
        self.out = nn.Linear(hidden, classes)
        self.dropout = Dropout(config.dropout.output)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and the last hidden layer (B, H), from h (B, H)."""
        z = self.first(h).relu()
        if self.second is not None:
            z = self.second(self.dropout(z)) + h
            return self.out(z), z
        return self.out(self.dropout(z)), z


def build_teacher(info: DatasetInfo, config: NetworkConfig, branch: str | None) -> Network:
    """The complete teacher of a data set, or the one branch whose queries come from `branch`."""
    projections = {m: Projection(info, config, m, config.kernels.get(m, config.kernel)) for m in info.modalities}
    return Network(projections, crossmodal_stacks(info.modalities, branch), True, config, len(info.classes))


def build_student(
    info: DatasetInfo, config: NetworkConfig, primary: str, pairing: Pairing, proxies: Proxies = "down"
) -> Network:
    """A student of the pairing's inputs, with a proxy, made from `primary`, for each missing modality.

    Proxies `down` (EDAM-S, the default: the paper's student shrinks its inputs) have the teacher's lengths T_m:
    with s = max(1, round(T_p / T_m)) interpolated to s T_m steps where that differs from T_p, then Conv1d with
    kernel = stride = s (s = 1: the configured kernel). Proxies `up` (EDAM-T) keep the primary's length.
    """
    used = {m for ends in pairing.stacks for m in ends}
    projections = {}
    for m in info.modalities:
        if m not in used:
            continue
        fed = m if m in pairing.inputs else primary
        kernel, stride, steps = config.kernels.get(m, config.kernel), 1, 0
        if m != fed and proxies == "down":
            stride = max(1, round(info.steps[fed] / info.steps[m]))
            kernel = stride if stride > 1 else kernel
            steps = stride * info.steps[m]
        projections[m] = Projection(info, config, fed, kernel, stride, steps)
    return Network(projections, pairing.stacks, pairing.fused, config, len(info.classes))


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Context of a forward pass in training: float32, or bfloat16 where torch allows it, with outputs `in_float32`.

    Weights, their gradients, the optimiser, losses and attention maps are float32 either way.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def in_float32(tensor: Tensor) -> Tensor:
    """A bfloat16 tensor in float32; any other as it is."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def tapped_in_float32(tapped: dict[str, Tapped]) -> dict[str, Tapped]:
    """All tapped results in float32."""
    return {
        name: Tapped(
            [replace(scores, query=in_float32(scores.query), key=in_float32(scores.key)) for scores in seen.factors],
            [in_float32(scores) for scores in seen.scores],
            [in_float32(attended) for attended in seen.attended],
        )
        for name, seen in tapped.items()
    }
