"""CRD against slow float64 loops that share no code with it: value and gradient, and the memory over several steps."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from distillation_cases import STEPS, make_info
from torch import Tensor

from mmkd.config import Distillation, Network
from mmkd.distillation import complete, load_method
from mmkd.distillation.base import Problem
from mmkd.distillation.crd import Method
from mmkd.distillation.frozen_teacher import Batch, FrozenTeacher
from mmkd.errors import UserError
from mmkd.models.network import Network as TrainedNetwork
from mmkd.models.network import Outputs, build_student, build_teacher
from mmkd.models.pairings import resolve_pairing

LEVELS = ("final", "penultimate", "post_attention", "attention_maps")
LABELS = torch.tensor([0, 1, 2, 0, 0, 1, 0, 2, 0, 1, 0, 0])
N, K, TAU, MOMENTUM, WIDTH = len(LABELS), 5, 0.4, 0.3, 6


@dataclass
class Case:
    student: TrainedNetwork
    teacher: FrozenTeacher
    method: Method
    inputs: dict[str, Tensor]

    def batch(self, places: list[int]) -> Batch:
        index = torch.tensor(places)
        return Batch({m: x[index] for m, x in self.inputs.items()}, LABELS[index], index)

    def outputs(self, batch: Batch) -> Outputs:
        outputs: Outputs = self.student(batch.x, self.method.taps())
        return outputs

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        loss: Tensor = self.method(batch, outputs, self.teacher)
        return loss

    def parameters(self) -> list[Tensor]:
        return [*self.method.parameters(), *self.student.parameters()]


def make_case(level: str | None = None, pairing: str = "others", seed: int = 0, **settings: Any) -> Case:
    """The student is narrower and less deep than the teacher; its in-projections are sharp, so that maps differ."""
    torch.manual_seed(seed)
    info = make_info()
    settings = {"embedding": WIDTH, "negatives": K, "momentum": MOMENTUM, **settings}
    config = complete(Distillation(method="crd", level=level, temperature=TAU, settings=settings))
    resolved = resolve_pairing(pairing, "video", info.modalities)
    small = Network(width=8, heads=2, layers=2, fusion_layers=1)
    large = Network(width=12, heads=3, layers=3, fusion_layers=1)
    student = build_student(info, small, "video", resolved).double().eval()
    teacher = FrozenTeacher(build_teacher(info, large, resolved.branch).double())
    for network in (student, teacher.network):
        for name, parameter in network.named_parameters():
            if name.endswith("in_projection"):
                parameter.data *= 4
    method = Method(Problem(config, resolved, student, teacher.network, LABELS, len(info.classes))).double()
    inputs = {m: torch.randn(N, info.steps[m], info.features[m], dtype=torch.float64) for m in info.modalities}
    return Case(student, teacher, method, inputs)


# --- the slow side


def slow_map(scores: Tensor) -> Tensor:
    """(B, Tq, Tk) of (B, heads, Tq, Tk): softmax in each head, mean over heads."""
    exponentials = scores.exp()
    return (
        sum((exponentials[:, h] / exponentials[:, h].sum(-1, keepdim=True)) for h in range(scores.shape[1]))
        / (scores.shape[1])
    )  # type: ignore[return-value]


def compared(case: Case, batch: Batch, outputs: Outputs) -> dict[str, dict[int, tuple[Tensor, Tensor]]]:
    """Student's and teacher's vectors (B, n) by place and site (layer x rows + row)."""
    theirs: Outputs = case.teacher.network(batch.x, {n: replace(t, rows=None) for n, t in outputs.taps.items()})
    level = case.method.level
    if level == "final":
        return {level: {0: (outputs.logits, theirs.logits)}}
    if level == "penultimate":
        return {level: {0: (outputs.penultimate, theirs.penultimate)}}
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for name, taps in outputs.taps.items():
        sites = found.setdefault(name, {})
        if level == "post_attention":
            layers = zip(outputs.tapped[name].attended, theirs.tapped[name].attended, strict=False)
            for layer, (a, b) in enumerate(layers):
                sites[layer] = (
                    sum(a[:, t] for t in range(a.shape[1])) / a.shape[1],  # type: ignore[assignment]
                    sum(b[:, t] for t in range(b.shape[1])) / b.shape[1],
                )
            continue
        rows, columns = case.student.map_shape(name)
        drawn = range(rows) if taps.rows is None else taps.rows.tolist()
        for layer, (a, b) in enumerate(zip(outputs.tapped[name].factors, theirs.tapped[name].factors, strict=False)):
            ours, other = slow_map(a.dense()), slow_map(b.dense())
            for place, row in enumerate(drawn):
                sites[layer * rows + row] = (ours[:, place] * columns - 1, other[:, row] * columns - 1)
    return found


def embedded(linear: torch.nn.Linear, x: Tensor) -> list[Tensor]:
    """Each sample's embedding: linear, then to length 1."""
    vectors = [linear.weight @ sample + linear.bias for sample in x]
    return [v / (v * v).sum().sqrt() for v in vectors]


def heads(case: Case, name: str) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    ours, theirs = case.method.embeddings[name]  # type: ignore[misc]
    return ours.linear, theirs.linear


def mean(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)  # type: ignore[return-value]


def slow_in_batch(case: Case, batch: Batch, outputs: Outputs, mask_same_class: bool) -> Tensor:
    places = []
    for name, sites in compared(case, batch, outputs).items():
        ours, theirs = heads(case, name)
        losses = []
        for a, b in sites.values():
            u, v = embedded(ours, a), embedded(theirs, b)
            for left, right in ((u, v), (v, u)):
                for i in range(len(left)):
                    others = [
                        j for j in range(len(left)) if j != i and not (mask_same_class and batch.y[j] == batch.y[i])
                    ]
                    own = ((left[i] * right[i]).sum() / TAU).exp()
                    losses.append(-(own / (own + sum(((left[i] * right[j]).sum() / TAU).exp() for j in others))).log())
        places.append(mean(losses))
    return mean(places)


class SlowBank:
    """The memory as lists: memory[side][site][sample], and Z by side and site."""

    def __init__(self, case: Case, name: str) -> None:
        bank = case.method.banks[name]
        self.memory = [[list(site.clone()) for site in side] for side in (bank.student, bank.teacher)]
        self.z: dict[tuple[int, int], float] = {}

    def direction(
        self, side: int, site: int, new: list[Tensor], index: list[int], negatives: list[list[int]]
    ) -> Tensor:
        """Embeddings of `side` against the other side's memory."""
        memory = self.memory[1 - side][site]
        scores = [
            [((new[i] * memory[place]).sum() / TAU).exp() for place in (index[i], *negatives[i])]
            for i in range(len(new))
        ]
        if (side, site) not in self.z:
            flat = [float(s.detach()) for row in scores for s in row]
            self.z[side, site] = N * sum(flat) / len(flat)
        c = len(negatives[0]) / N
        losses = []
        for row in scores:
            attract, *repel = [s / self.z[side, site] for s in row]
            losses.append(-((attract / (attract + c)).log() + sum((c / (s + c)).log() for s in repel)))
        return mean(losses)

    def update(self, side: int, site: int, new: list[Tensor], index: list[int]) -> None:
        for vector, place in zip(new, index, strict=True):
            moved = MOMENTUM * self.memory[side][site][place] + (1 - MOMENTUM) * vector.detach()
            self.memory[side][site][place] = moved / (moved * moved).sum().sqrt()


def slow_bank(case: Case, banks: dict[str, SlowBank], batch: Batch, outputs: Outputs, negatives: Tensor) -> Tensor:
    places = []
    index, drawn = batch.index.tolist(), negatives.tolist()
    for name, sites in compared(case, batch, outputs).items():
        ours, theirs = heads(case, name)
        losses = []
        for site, (a, b) in sites.items():
            u, v = embedded(ours, a), embedded(theirs, b)
            bank = banks[name]
            losses.append(bank.direction(0, site, u, index, drawn) + bank.direction(1, site, v, index, drawn))
            bank.update(0, site, u, index)
            bank.update(1, site, v, index)
        places.append(mean(losses))
    return mean(places)


def assert_same_gradients(case: Case, fast: Tensor, slow: Tensor) -> None:
    gradients = [
        torch.autograd.grad(loss, case.parameters(), retain_graph=True, allow_unused=True) for loss in (fast, slow)
    ]
    assert any(g is not None and g.abs().max() > 1e-6 for g in gradients[0][-20:])  # the student learns
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-10, rtol=1e-7)


# --- in_batch


@pytest.mark.parametrize("masked", [True, False], ids=["other classes", "all others"])
@pytest.mark.parametrize("level", LEVELS)
def test_in_batch_equals_the_loops_in_value_and_gradient(level: str, masked: bool) -> None:
    case = make_case(level, estimator="in_batch", mask_same_class=masked)
    batch = case.batch([0, 1, 4, 7, 6])
    outputs = case.outputs(batch)
    fast, slow = case.loss(batch, outputs), slow_in_batch(case, batch, outputs, masked)
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=1e-9)
    assert_same_gradients(case, fast, slow)


@pytest.mark.parametrize("pairing", ["complete", "video", "audio"])
@pytest.mark.parametrize("level", ["post_attention", "attention_maps"])
def test_the_loss_is_the_mean_over_layers_rows_and_pairs_of_any_pairing(level: str, pairing: str) -> None:
    case = make_case(level, pairing)
    batch = case.batch([0, 1, 7])
    outputs = case.outputs(batch)
    assert set(outputs.taps) == set(case.method.problem.pairing.distilled)
    torch.testing.assert_close(case.loss(batch, outputs), slow_in_batch(case, batch, outputs, True))


def test_masking_the_same_class_leaves_nothing_to_tell_apart_in_a_batch_of_one_class() -> None:
    case = make_case("final", estimator="in_batch")
    batch = case.batch([0, 3, 4, 6])
    outputs = case.outputs(batch)
    loss = case.loss(batch, outputs)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in case.parameters())
    unmasked = make_case("final", estimator="in_batch", mask_same_class=False)
    assert unmasked.loss(batch, unmasked.outputs(batch)) > 0.1


# --- bank


@pytest.mark.parametrize(("level", "rows"), [*((level, 0) for level in LEVELS), ("attention_maps", 2)])
def test_the_bank_equals_the_loops_over_several_steps(level: str, rows: int) -> None:
    case = make_case(level, estimator="bank", rows=rows)
    banks = {name: SlowBank(case, name) for name in case.method.names}
    optimizer = torch.optim.SGD(case.parameters(), 0.5)
    for step, places in enumerate([[0, 1, 2, 3], [4, 5, 7, 0], [1, 8, 10, 0]]):
        batch = case.batch(places)
        outputs = case.outputs(batch)
        torch.manual_seed(step)
        negatives = case.method._draw_negatives(batch.y)
        torch.manual_seed(step)
        fast = case.loss(batch, outputs)
        slow = slow_bank(case, banks, batch, outputs, negatives)
        torch.testing.assert_close(fast, slow, atol=1e-10, rtol=1e-8)
        assert_same_gradients(case, fast, slow)
        optimizer.zero_grad()
        fast.backward()
        optimizer.step()
        for name, expected in banks.items():
            bank = case.method.banks[name]
            for side, memory in enumerate((bank.student, bank.teacher)):
                torch.testing.assert_close(memory, torch.stack([torch.stack(s) for s in expected.memory[side]]))
                for site in range(len(memory)):
                    z = expected.z.get((side, site))
                    assert bank.log_z[side, site].item() == pytest.approx(
                        math.nan if z is None else math.log(z), nan_ok=True
                    )


def test_z_is_set_by_the_first_batch_and_then_frozen() -> None:
    case = make_case("final", estimator="bank")
    bank = case.method.banks["final"]
    assert bank.log_z.isnan().all()
    case.loss(batch := case.batch([0, 1, 2]), case.outputs(batch))
    first = bank.log_z.clone()
    assert first.isfinite().all()
    assert first[0] != first[1]  # one a side
    for places in ([3, 4, 5], [6, 7, 8]):
        case.loss(batch := case.batch(places), case.outputs(batch))
    assert torch.equal(bank.log_z, first)


def test_z_of_a_row_that_was_not_drawn_stays_unset_until_it_is() -> None:
    case = make_case("attention_maps", "video", estimator="bank", rows=1)
    batch = case.batch([0, 1, 2])
    (name, *_) = case.method.names
    bank = case.method.banks[name]
    rows = case.student.map_shape(name)[0]
    seen: dict[int, Tensor] = {}
    for step in range(40):
        torch.manual_seed(step)
        outputs = case.outputs(batch)
        taps = outputs.taps[name]
        assert taps.rows is not None
        case.loss(batch, outputs)
        seen.setdefault(int(taps.rows), bank.log_z.view(2, -1, rows)[:, :, int(taps.rows)].clone())
        by_row = bank.log_z.view(2, -1, rows)
        for row in range(rows):
            expected = seen.get(row, torch.full_like(by_row[:, :, row], math.nan))
            torch.testing.assert_close(by_row[:, :, row], expected, equal_nan=True)
    assert len(seen) == rows


def test_the_memory_is_updated_after_scoring_and_at_the_batchs_places_alone() -> None:
    case = make_case("final", estimator="bank", negatives=1)
    bank = case.method.banks["final"]
    before = bank.student.clone(), bank.teacher.clone()
    batch = case.batch([2, 9])
    case.loss(batch, case.outputs(batch))
    for memory, old in zip((bank.student, bank.teacher), before, strict=True):
        changed = (memory != old).any(-1)[0].nonzero().flatten().tolist()
        assert changed == [2, 9]
        torch.testing.assert_close(memory[0, [2, 9]].norm(dim=-1), torch.ones(2, dtype=torch.float64))
        assert not memory.requires_grad


def test_new_memories_are_spread_uniformly_as_in_the_reference() -> None:
    bank = make_case("final", estimator="bank", embedding=512).method.banks["final"]
    bound = math.sqrt(3 / 512)
    for memory in (bank.student, bank.teacher):
        assert 0.99 * bound < memory.abs().max() <= bound
        assert memory.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not torch.equal(bank.student, bank.teacher)


@pytest.mark.parametrize("labels", [LABELS.tolist(), [2, 0, 2, 2, 0], [0, 0, 0, 0, 3, 1]])
def test_negatives_are_drawn_evenly_from_all_samples_of_other_classes(labels: list[int]) -> None:
    case = make_case("final", estimator="bank")
    problem = replace(case.method.problem, labels=torch.tensor(labels), classes=4)
    settings = {**problem.config.settings, "negatives": len(labels)}
    problem = replace(problem, config=problem.config.model_copy(update={"settings": settings}))
    method = Method(problem)
    torch.manual_seed(0)
    for label in set(labels):
        drawn = method._draw_negatives(torch.tensor([label] * 600))
        assert drawn.shape == (600, len(labels))
        allowed = [place for place, other in enumerate(labels) if other != label]
        counts = Counter(drawn.flatten().tolist())
        assert sorted(counts) == allowed
        share = 1 / len(allowed)
        spread = math.sqrt(share * (1 - share) / drawn.numel())
        assert all(abs(c / drawn.numel() - share) <= 5 * spread for c in counts.values())


def test_there_are_never_more_negatives_than_samples_in_train() -> None:
    case = make_case("final", estimator="bank", negatives=4096)
    assert case.method._draw_negatives(torch.tensor([0, 1])).shape == (2, N)


def test_the_state_restores_memories_and_z() -> None:
    first, second = (make_case("attention_maps", estimator="bank", rows=2) for _ in range(2))
    with torch.no_grad():
        for tensor in (*second.method.parameters(), *second.method.buffers()):
            if tensor.is_floating_point():
                tensor += 1.0
    for places in ([0, 1, 2], [3, 5, 7]):
        first.loss(batch := first.batch(places), first.outputs(batch))
    second.method.load_state_dict(first.method.state_dict())
    losses = []
    for case in (first, second):
        torch.manual_seed(5)
        batch = case.batch([4, 9, 7])
        losses.append(case.loss(batch, case.outputs(batch)).item())
    assert losses[0] == losses[1]
    torch.testing.assert_close(
        second.method.state_dict(), first.method.state_dict(), atol=0.0, rtol=0.0, equal_nan=True
    )


def test_memories_beyond_the_limit_are_refused_in_one_line() -> None:
    case = make_case("attention_maps")
    mosei = replace(make_info(), steps={"video": 500, "audio": 500, "language": 50})
    pairing = resolve_pairing("others", "video", mosei.modalities)
    config = Network(width=8, layers=4)
    student, teacher = build_student(mosei, config, "video", pairing), build_teacher(mosei, config, None)
    wanted = complete(Distillation(method="crd", level="attention_maps", settings={"estimator": "bank"}))
    labels = torch.arange(16326) % 7
    problem = replace(case.method.problem, config=wanted, student=student, teacher=teacher, labels=labels)
    with pytest.raises(UserError) as caught:
        Method(replace(problem, classes=7))
    message = str(caught.value)
    assert "\n" not in message
    # 4 layers x (500 + 50) rows x 16326 samples x 128 floats, for two sides
    assert f"{2 * 4 * 4 * 550 * 16326 * 128 / 2**30:.1f} GiB" in message
    assert "estimator = 'in_batch'" in message


def test_a_bank_over_one_class_is_refused() -> None:
    problem = replace(make_case("final").method.problem, labels=torch.zeros(N, dtype=torch.long))
    with pytest.raises(UserError, match="no negatives of other classes"):
        Method(problem)


# --- rows


@pytest.mark.parametrize("rows", [1, 2])
def test_sampling_rows_is_unbiased(rows: int) -> None:
    """Every choice of rows comes, equally often, and the mean of the loss over all choices is that over all rows."""
    case, every = make_case("attention_maps", "video", rows=rows), make_case("attention_maps", "video")
    every.method.load_state_dict(case.method.state_dict())
    steps = 4  # a video this short has few enough choices of rows to try them all
    case.inputs["video"] = case.inputs["video"][:, :steps]
    case.method.rows = dict.fromkeys(case.method.names, steps)
    batch = case.batch([0, 1, 7])
    choices = [frozenset(choice) for choice in itertools.combinations(range(steps), rows)]
    torch.manual_seed(0)
    drawn = [case.method.taps() for _ in range(60 * len(choices))]
    for name in case.method.names:
        counts = Counter(frozenset(taps[name].rows.tolist()) for taps in drawn)  # type: ignore[union-attr]
        assert set(counts) == set(choices)
        assert max(abs(count - 60) for count in counts.values()) < 5 * math.sqrt(60)
    losses = []
    for choice in choices:
        taps = {name: replace(t, rows=torch.tensor(sorted(choice))) for name, t in drawn[0].items()}
        losses.append(case.loss(batch, case.student(batch.x, taps)).item())
    full = every.loss(batch, case.student(batch.x, every.method.taps())).item()
    assert sum(losses) / len(losses) == pytest.approx(full, rel=1e-12)
    assert max(losses) - min(losses) > 1e-4


def test_as_many_rows_as_there_are_means_all_in_order() -> None:
    case = make_case("attention_maps", "video", rows=STEPS["video"])
    assert all(taps.rows is None for taps in case.method.taps().values())


# --- defaults


@pytest.mark.parametrize(
    ("level", "estimator"),
    [("final", "bank"), ("penultimate", "bank"), ("post_attention", "in_batch"), ("attention_maps", "in_batch")],
)
def test_vectors_use_a_bank_by_default_and_rows_the_batch(level: str, estimator: str) -> None:
    settings = complete(Distillation(method="crd", level=level)).settings
    assert settings["estimator"] == estimator
    assert (settings["embedding"], settings["negatives"], settings["momentum"]) == (128, 4096, 0.5)
    assert len(make_case(level).method.banks) == (1 if estimator == "bank" else 0)


def test_the_default_is_attention_maps_at_the_usual_temperature_of_crd() -> None:
    assert complete(Distillation(method="crd")).level == "attention_maps"
    assert load_method("crd").usual_temperature == 0.07


@pytest.mark.parametrize("level", LEVELS)
def test_both_heads_and_the_student_learn_and_the_teacher_does_not(level: str) -> None:
    case = make_case(level)
    batch = case.batch([0, 1, 7])
    case.loss(batch, case.outputs(batch)).backward()
    assert all(p.grad is not None and p.grad.any() for p in case.method.parameters())
    assert any(p.grad is not None and p.grad.any() for p in case.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in case.teacher.network.parameters())
