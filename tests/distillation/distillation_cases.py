"""A method between tiny networks in float64, on random data, for every pairing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.config import Distillation, Network
from mmkd.data import DatasetInfo
from mmkd.data.tensors import Samples
from mmkd.distillation import complete, load_method
from mmkd.distillation.base import DistillationMethod, Problem
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.models.network import Network as TrainedNetwork
from mmkd.models.network import Outputs, build_student, build_teacher
from mmkd.models.pairings import resolve_pairing
from mmkd.models.scores import Scores

STEPS = {"video": 9, "audio": 7, "language": 4}
FEATURES = {"video": 3, "audio": 2, "language": 5}
THREE = ("video", "audio", "language")
TWO = ("video", "audio")
PAIRINGS = [
    *((THREE, primary, pairing) for primary in THREE for pairing in ("complete", "others", *THREE)),
    *((TWO, primary, pairing) for primary in TWO for pairing in ("complete", "others", *TWO)),
    (THREE, "video", "multimodal"),
    (TWO, "video", "multimodal"),
]
"""(modalities, primary, pairing): all that there are for three and for two modalities."""


@dataclass
class Case:
    """A method between a student and a teacher, and a batch of theirs."""

    student: TrainedNetwork
    teacher: FrozenTeacher
    method: DistillationMethod
    batch: Batch

    def outputs(self) -> Outputs:
        outputs: Outputs = self.student(self.batch.x, self.method.taps())
        return outputs

    def loss(self, outputs: Outputs) -> Tensor:
        loss: Tensor = self.method(self.batch, outputs, self.teacher)
        return loss


def make_info(modalities: tuple[str, ...] = THREE) -> DatasetInfo:
    return DatasetInfo(
        path=Path("tiny.h5"),
        modalities=modalities,
        classes=("a", "b", "c"),
        label_kind="class",
        score_range=None,
        vectors={},
        steps={m: STEPS[m] for m in modalities},
        features={m: FEATURES[m] for m in modalities},
        sizes={},
        class_counts={},
        source="",
        license="",
        notes="",
        fingerprint="",
        layout_version=1,
    )


def make_batch(info: DatasetInfo, samples: int) -> Batch:
    shapes = {m: (samples, info.steps[m], info.features[m]) for m in info.modalities}
    x = {m: torch.randn(shape, dtype=torch.float64) for m, shape in shapes.items()}
    return Batch(x, torch.arange(samples) % len(info.classes), torch.arange(samples))


def make_case(
    method: str,
    *,
    pairing: str = "others",
    primary: str = "video",
    modalities: tuple[str, ...] = THREE,
    temperature: float = 1.0,
    level: str | None = None,
    mask: str = "none",
    samples: int = 3,
    sharpness: float = 4.0,
    held_out: int = 0,
    **settings: Any,
) -> Case:
    """Teacher and student have unlike widths, depths and numbers of heads.

    In-projections are multiplied by `sharpness`: maps are then far from uniform, as they are after training.
    `held_out` is the number of samples that the method has besides train's.
    """
    torch.manual_seed(0)
    info = make_info(modalities)
    config = complete(Distillation(method=method, level=level, temperature=temperature, settings=settings))
    loaded = load_method(method)
    resolved = resolve_pairing(pairing, primary, info.modalities)
    small = Network.model_validate({"width": 8, "heads": 2, "layers": 2, "fusion_layers": 2, "mask": mask})
    large = Network.model_validate({"width": 12, "heads": 3, "layers": 2, "fusion_layers": 1, "mask": mask})
    student = build_student(info, small, primary, resolved, loaded.proxies(config)).double()
    teacher = FrozenTeacher(build_teacher(info, large, resolved.branch).double())
    for network in (student, teacher.network):
        for name, parameter in network.named_parameters():
            if name.endswith("in_projection"):
                parameter.data *= sharpness
    batch = make_batch(info, samples)
    apart = make_batch(info, held_out)
    part = Samples(dict(apart.x), apart.y, None, [f"held out {n}" for n in range(held_out)]) if held_out else None
    problem = Problem(config, resolved, student, teacher.network, batch.y, len(info.classes), part)
    return Case(student, teacher, loaded(problem).double(), batch)


Pairs = list[list[tuple[Scores, Scores]]]


def score_pairs(case: Case, outputs: Outputs) -> Pairs:
    """(student's, teacher's) scores by distilled pair and layer, as many layers as both have."""
    theirs = case.teacher.tap(case.batch.x, outputs.taps)
    names = case.method.problem.pairing.distilled
    return [list(zip(outputs.tapped[name].factors, theirs[name].factors, strict=False)) for name in names]


def cut(outputs: Outputs) -> Outputs:
    """Outputs whose tapped queries and keys are leaves: the network's own attention, which has them too, is cut off."""
    for tapped in outputs.tapped.values():
        tapped.factors = [copied(scores, True) for scores in tapped.factors]
    return outputs


def leaves(pairs: Pairs) -> Pairs:
    """Copies of `pairs`; the student's queries and keys want a gradient."""
    return [[(copied(a, True), copied(b, False)) for a, b in layers] for layers in pairs]


def copied(scores: Scores, wanted: bool) -> Scores:
    query, key = (factor.detach().clone().requires_grad_(wanted) for factor in (scores.query, scores.key))
    return Scores(query, key, scores.mask)


def dense(pairs: Pairs) -> list[list[tuple[Tensor, Tensor]]]:
    """The scores (B, heads, Tq, Tk) themselves."""
    return [[(a.dense(), b.dense()) for a, b in layers] for layers in pairs]


def students(pairs: Pairs) -> list[Tensor]:
    """The student's queries and keys alone."""
    return [factor for layers in pairs for a, _ in layers for factor in (a.query, a.key)]


def assert_only_the_student_learns(case: Case) -> None:
    """A finite loss; finite gradients in student and method, not all zero in the student, none in the teacher."""
    loss = case.loss(case.outputs())
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    own = [p for p in case.method.parameters() if p.requires_grad]
    gradients = [p.grad for p in [*case.student.parameters(), *own] if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(p.grad is not None and (p.grad != 0).any() for p in case.student.parameters())
    assert all(p.grad is not None for p in own)
    assert all(p.grad is None and not p.requires_grad for p in case.teacher.network.parameters())
