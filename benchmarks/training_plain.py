"""Training steps the straightforward way, to measure and check mmkd's against.

Explicit softmax attention everywhere; every layer's scores kept; each step reads its batch from the HDF5 file and runs
the whole teacher, whatever the method needs of it. The parameters are those of mmkd's own networks and methods.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd.distillation._maps import MapMethod
from mmkd.distillation.base import DistillationMethod
from mmkd.distillation.crd import Method as CRD
from mmkd.distillation.crd import in_batch_loss
from mmkd.distillation.edam import Method as EDAM
from mmkd.distillation.frozen_teacher import Batch, blank
from mmkd.models.attention import Attention, Stack, Tapped, mult_mask, positions
from mmkd.models.network import Network, Outputs
from mmkd.models.pairings import fusion_name, stack_name
from mmkd.training.lesson import Lesson


class Hdf5Batches:
    """Batches of a split, read from the file and standardised each time that they are asked for."""

    def __init__(self, path: Path, split: str, modalities: Sequence[str], device: torch.device) -> None:
        self.file = h5py.File(path, "r", locking=False)
        self.split, self.modalities, self.device = split, modalities, device

    def read(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs x[modality] (B, T_m, F_m) and labels (B,) of the samples at `index` (B,)."""
        places = index.cpu().numpy()
        order = np.argsort(places)
        back = np.argsort(order)
        x = {m: torch.from_numpy(self._array(m, places[order])[back]).to(self.device) for m in self.modalities}
        return x, torch.from_numpy(self.file[f"{self.split}/labels"][:][places]).to(self.device)

    def _array(self, modality: str, places: np.ndarray) -> np.ndarray:
        statistics = self.file[f"train/arrays/{modality}"].attrs
        array = self.file[f"{self.split}/arrays/{modality}"][places]
        array = ((array - statistics["mean"]) / statistics["std"]).astype(np.float32)
        lengths = self.file[f"{self.split}/lengths/{modality}"][places]
        array[np.arange(array.shape[1]) < array.shape[1] - lengths[:, None]] = 0.0
        return array


def attend(attention: Attention, query: Tensor, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The attended sequence (B, Tq, D) and the scores (B, heads, Tq, Tk)."""
    width = query.shape[-1]
    weights, biases = attention.in_projection.split(width), attention.in_bias.split(width)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for x, weight, bias in zip((query, source, source), weights, biases, strict=True)
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    probabilities = F.dropout(scores.softmax(-1), attention.dropout, attention.training)
    return attention.out_projection((probabilities @ v).transpose(1, 2).flatten(2)), scores


def run_stack(stack: Stack, query: Tensor, source: Tensor) -> tuple[Tensor, Tapped]:
    """Output (B, Tq, D), and all layers' scores and attended sequences."""
    embedded = []
    for x in (query,) if stack.updated else (query, source):
        real = (x[..., :1] != 0).to(x.dtype)
        place = positions(x.shape[1], x.shape[2]).to(x)
        embedded.append(stack.embedding_dropout(math.sqrt(x.shape[-1]) * x + real * place))
    x, source = embedded[0], embedded[-1]
    mask = mult_mask(x.shape[1], source.shape[1], x.device) if stack.mask is not None else None
    tapped = Tapped()
    for layer in stack.layers:
        source = x if stack.updated else source
        attended, scores = attend(layer.attention, layer.attention_norm(x), layer.attention_norm(source), mask)
        tapped.scores.append(scores)
        tapped.attended.append(attended)
        x = x + layer.residual_dropout(attended)
        hidden = layer.relu_dropout(layer.up(layer.forward_norm(x)).relu())
        x = x + layer.residual_dropout(layer.down(hidden))
    return stack.norm(x), tapped


def run(network: Network, x: Mapping[str, Tensor]) -> Outputs:
    """The whole network, with everything tapped in every stack."""
    sequences = {place: projection(x[projection.modality]) for place, projection in network.by_modality().items()}
    tapped: dict[str, Tapped] = {}
    outputs: list[tuple[str, Tensor]] = []
    for source, query in network.stack_ends:
        name = stack_name(source, query)
        output, tapped[name] = run_stack(network.stack(name), sequences[query], sequences[source])
        outputs.append((query, output))
    readouts = [output for _, output in outputs]
    if network.fusions:
        readouts = []
        for name in network.fusions:
            joined = torch.cat([output for query, output in outputs if fusion_name(query) == name], -1)
            output, tapped[name] = run_stack(network.stack(name), joined, joined)
            readouts.append(output)
    last = network.readout == "last"
    logits, penultimate = network.head(torch.cat([r[:, -1] if last else r.mean(1) for r in readouts], -1))
    return Outputs(logits, penultimate, tapped, {})


class PlainTeacher:
    """Answers as `FrozenTeacher` does, by running all of the teacher each time."""

    def __init__(self, network: Network) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def outputs(self, batch: Batch, kept: Collection[str] | None = None) -> Outputs:
        """Logits and last hidden layer of the batch, of the view that keeps some modalities."""
        return run(self.network, blank(batch.x, batch.x if kept is None else kept))

    @torch.no_grad()
    def tap(self, x: Mapping[str, Tensor], taps: object) -> dict[str, Tapped]:
        """All stacks' scores and attended sequences."""
        return run(self.network, x).tapped


def distil(method: DistillationMethod, batch: Batch, student: Outputs, teacher: PlainTeacher) -> Tensor:
    """L_KD; of maps, from whole maps."""
    if not isinstance(method, MapMethod) and not (isinstance(method, CRD) and method.level == "attention_maps"):
        loss: Tensor = method(batch, student, teacher)
        return loss
    theirs = teacher.tap(batch.x, None)
    losses = []
    for name in method.problem.pairing.distilled:
        pairs = zip(student.tapped[name].scores, theirs[name].scores, strict=False)
        if isinstance(method, CRD):
            losses.append(contrast(method, name, list(pairs), batch.y))
        else:
            losses.append(torch.stack([compare(method, name, a, b) for a, b in pairs]).mean())
    return torch.stack(losses).mean()


def compare(method: MapMethod, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean over rows of a loss between maps, from one layer's scores (B, heads, Tq, Tk)."""
    hidden = ours[:1, :1].isneginf()
    if isinstance(method, EDAM) and method.upsamplings:
        layer = method.upsamplings[name]
        theirs = theirs.masked_fill(theirs.isneginf(), 0.0)
        theirs = theirs if layer.columns is None else theirs @ layer.columns.T
        theirs = theirs if layer.rows is None else layer.rows @ theirs
    else:
        hidden = hidden | theirs[:1, :1].isneginf()
    t = method.problem.config.temperature
    a, b = ((scores.masked_fill(hidden, -math.inf) / t).softmax(-1).mean(1) for scores in (ours, theirs))
    return method.row_loss(a, b).mean()


def contrast(method: CRD, name: str, pairs: list[tuple[Tensor, Tensor]], labels: Tensor) -> Tensor:
    """CRD between all rows of all layers' maps, with the batch's other samples as negatives."""
    vectors = []
    for embedding, layers in zip(method.embeddings[name], zip(*pairs, strict=True), strict=True):
        maps = torch.stack([scores.softmax(-1).mean(1) for scores in layers])
        vectors.append(embedding((maps * maps.shape[-1] - 1).transpose(1, 2).flatten(0, 1)))
    return in_batch_loss(*vectors, labels, method.tau, method.settings.mask_same_class)


def loss_of(lesson: Lesson, batch: Batch) -> Tensor:
    """The loss of a batch (Eq. 1)."""
    outputs = run(lesson.network, batch.x)
    loss = lesson.alpha * F.cross_entropy(outputs.logits, batch.y)
    if lesson.method is not None and lesson.teacher is not None:
        loss = loss + lesson.beta * distil(lesson.method, batch, outputs, PlainTeacher(lesson.teacher.network))
    return loss


class PlainTrainer:
    """Adam on what `lesson` has to learn."""

    def __init__(self, lesson: Lesson, learning_rate: float, clip: float) -> None:
        modules: list[Any] = [lesson.network] if lesson.method is None else [lesson.network, lesson.method]
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, learning_rate)
        self.lesson, self.clip = lesson, clip
        self.batches = Hdf5Batches(lesson.info.path, "train", list(lesson.train.x), lesson.train.y.device)

    def step(self, index: Tensor) -> None:
        """One step on the samples at `index` (B,)."""
        x, y = self.batches.read(index)
        loss = loss_of(self.lesson, Batch(x, y, index))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
