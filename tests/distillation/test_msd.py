"""MSD against its definition, sample by sample and view by view in float64; what its weights are; how they learn."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation_cases import (
    PAIRINGS,
    THREE,
    TWO,
    Case,
    assert_only_the_student_learns,
    make_batch,
    make_case,
    make_info,
)
from map_reference import kullback_leibler, softmax, total
from torch import Tensor

from mmkd.distillation.frozen_teacher import FrozenTeacher, blank
from mmkd.distillation.msd import Method
from mmkd.errors import UserError
from mmkd.models.network import Network
from mmkd.result_file import Status, read_result
from mmkd.training.trainer import Preempted

WEIGHTINGS = ["uniform", "population", "instance", "learned"]


def make_msd(weighting: str = "uniform", modalities: tuple[str, ...] = THREE, **changes: Any) -> Case:
    """A small multimodal student without dropout, its method, and a teacher that has seen train."""
    options = {"pairing": "multimodal", "held_out": 5, "samples": 3, **changes}
    if weighting == "learned":
        options |= {"hidden": 4}
    case = make_case("msd", modalities=modalities, weighting=weighting, **options)
    case.student.eval()
    case.teacher.remember(case.batch.x)
    weigher = method_of(case).weigher
    if weigher is not None:
        for parameter in weigher.parameters():
            torch.nn.init.normal_(parameter)
    return case


def method_of(case: Case) -> Method:
    assert isinstance(case.method, Method)
    return case.method


def logits(network: Network, x: dict[str, Tensor], sample: int, kept: set[str]) -> list[Tensor]:
    """Of one sample alone, with the modalities that are not in `kept` set to zero."""
    one = {m: value[sample : sample + 1] * (1.0 if m in kept else 0.0) for m, value in x.items()}
    return list(network(one).logits[0])


def slow_kl(p: list[Tensor], q: list[Tensor], t: float = 1.0) -> Tensor:
    return kullback_leibler(softmax(p, t), softmax(q, t))


def slow_weights(case: Case, weighting: str, sample: int) -> list[Tensor]:
    x, teacher = dict(case.batch.x), case.teacher.network
    every = set(x)

    def saliency(n: int) -> list[Tensor]:
        return [slow_kl(logits(teacher, x, n, every), logits(teacher, x, n, every - {m})) for m in x]

    if weighting == "learned":
        weigher = method_of(case).weigher
        assert weigher is not None
        w1, b1, w2, b2 = weigher.parameters()
        known = logits(teacher, x, sample, every) + [v for m in x for v in logits(teacher, x, sample, {m})]
        return softmax(list(w2 @ (w1 @ torch.stack(known) + b1).clamp(min=0) + b2))
    if weighting == "uniform":
        return [torch.ones((), dtype=torch.float64) / len(x) for _ in x]
    by_sample = [saliency(n) for n in (range(len(case.batch.y)) if weighting == "population" else [sample])]
    sums = [total([s[m] for s in by_sample]) for m in range(len(x))]
    return [s / total(sums) for s in sums]


def slow_loss(case: Case, weighting: str, t: float) -> Tensor:
    x, every = dict(case.batch.x), set(case.batch.x)
    losses = []
    for n in range(len(case.batch.y)):
        views = [every, *({m} for m in x)]
        weights = [torch.ones((), dtype=torch.float64), *slow_weights(case, weighting, n)]
        pairs = [(logits(case.teacher.network, x, n, v), logits(case.student, x, n, v)) for v in views]
        losses.append(total([w * slow_kl(*pair, t) for w, pair in zip(weights, pairs, strict=True)]))
    return t * t * total(losses) / len(losses)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("temperature", "modalities"), [(0.5, THREE), (3.0, TWO)])
def test_msd_is_its_definition_in_value_and_gradient(
    weighting: str, temperature: float, modalities: tuple[str, ...]
) -> None:
    case = make_msd(weighting, modalities, temperature=temperature)
    parameters = list(case.student.parameters())
    loss, expected = case.loss(case.outputs()), slow_loss(case, weighting, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(value, parameters) for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_weights_of_a_sample_sum_to_one_and_are_recorded(weighting: str, augmented: bool) -> None:
    case = make_msd(weighting)
    case.teacher.remember(case.batch.x, augmented=augmented)
    weights = weights_of(case)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert (weights >= 0).all()
    case.loss(case.outputs())
    means = {f"weight_{m}": mean for m, mean in zip(THREE, weights.mean(0), strict=True)}
    torch.testing.assert_close(case.method.monitored, means)
    assert len({tuple(w.tolist()) for w in weights}) == (3 if weighting in ("instance", "learned") else 1)


def weights_of(case: Case) -> Tensor:
    method, teacher, batch = method_of(case), case.teacher, case.batch
    whole = teacher.outputs(batch).logits
    theirs = torch.stack([teacher.outputs(batch, {m}).logits for m in method.inputs], 1)
    return method.weights(batch, teacher, whole, theirs)


@pytest.mark.parametrize("weighting", ["population", "instance"])
def test_a_modality_that_is_blank_anyway_has_no_weight_and_where_all_are_the_weights_are_equal(weighting: str) -> None:
    case = make_msd(weighting)
    for kept, expected in (({"video", "language"}, 0.0), (set[str](), 1 / 3)):
        case.batch = replace(case.batch, x=blank(case.batch.x, kept))
        case.teacher.remember(case.batch.x)
        assert weights_of(case)[:, 1].tolist() == pytest.approx([expected] * 3)
    torch.testing.assert_close(weights_of(case), torch.full((3, 3), 1 / 3, dtype=torch.float64))


def test_weights_by_population_are_those_of_train_as_it_is_also_where_batches_are_augmented() -> None:
    case = make_msd("population")
    expected = weights_of(case)
    case.teacher.remember(case.batch.x, augmented=True)
    case.batch = replace(case.batch, x={m: x + 1 for m, x in case.batch.x.items()})
    torch.testing.assert_close(weights_of(case), expected)


def test_blanked_modalities_are_zero_and_the_others_untouched() -> None:
    x = dict(make_batch(make_info(), 2).x)
    blanked = blank(x, {"audio"})
    assert torch.equal(blanked["audio"], x["audio"])
    assert not blanked["video"].any()
    assert not blanked["language"].any()
    assert {m: value.shape for m, value in blanked.items()} == {m: value.shape for m, value in x.items()}


def test_every_view_of_train_is_run_once_and_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmkd.distillation.frozen_teacher.REMEMBERING_BATCH", 2)
    case = make_msd("instance")
    fresh = FrozenTeacher(case.teacher.network)
    runs: list[int] = []
    forward = Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, *a: runs.append(self is fresh.network) or forward(self, *a))
    batch = replace(
        case.batch, index=case.batch.index.flip(0), x={m: value.flip(0) for m, value in case.batch.x.items()}
    )
    views = [None, *({m} for m in THREE), {"video", "audio"}, set(THREE)]
    computed = [fresh.outputs(batch, view).logits for view in views]
    assert sum(runs) == 6
    for _ in range(2):
        remembered = [case.teacher.outputs(batch, view).logits for view in views]
        torch.testing.assert_close(remembered, computed)
    assert sum(runs) == 6 + 5 * 2  # the last view is the first


@pytest.mark.parametrize(("modalities", "primary", "pairing"), PAIRINGS)
def test_msd_serves_every_pairing(modalities: tuple[str, ...], primary: str, pairing: str) -> None:
    case = make_case("msd", modalities=modalities, primary=primary, pairing=pairing)
    assert_only_the_student_learns(case)


@pytest.mark.parametrize("pairing", ["others", "complete", "audio"])
def test_a_student_of_one_modality_is_taught_by_all_and_by_its_own(pairing: str) -> None:
    case = make_case("msd", pairing=pairing, primary="audio", temperature=2.0)
    outputs, x = case.outputs(), dict(case.batch.x)
    ours = [list(row) for row in outputs.logits]
    terms = [
        slow_kl(logits(case.teacher.network, x, n, view), ours[n], 2.0)
        for n in range(len(ours))
        for view in (set(THREE), {"audio"})
    ]
    torch.testing.assert_close(case.loss(outputs), 4 * total(terms) / len(ours))


@pytest.mark.parametrize("weighting", WEIGHTINGS[1:])
def test_a_student_of_one_modality_has_nothing_to_weigh(weighting: str) -> None:
    with pytest.raises(UserError, match=rf"weighting = '{weighting}' needs a student of several modalities.*uniform"):
        make_case("msd", pairing="others", weighting=weighting, held_out=3)


def test_learned_weights_without_a_part_held_out_are_refused() -> None:
    with pytest.raises(UserError, match=r"set training\.held_out = 0\.1"):
        make_case("msd", pairing="multimodal", weighting="learned")


def test_a_multimodal_student_reads_every_modality() -> None:
    case = make_msd()
    before = case.student(case.batch.x).logits
    for m in THREE:
        changed = {**case.batch.x, m: case.batch.x[m] + 1}
        assert not torch.allclose(case.student(changed).logits, before)


def training_loss(case: Case) -> Tensor:
    """As the trainer's: alpha = 0.4, beta = 0.9."""
    outputs = case.outputs()
    return 0.4 * torch.nn.functional.cross_entropy(outputs.logits, case.batch.y) + 0.9 * case.loss(outputs)


def ahead(case: Case, rate: float) -> float:
    """Cross-entropy on the whole held-out part of a copy of the student that was moved one gradient step."""
    moved = copy.deepcopy(case.student)
    gradients = torch.autograd.grad(training_loss(case), list(case.student.parameters()))
    for parameter, gradient in zip(moved.parameters(), gradients, strict=True):
        parameter.data -= rate * gradient
    held_out = case.method.problem.held_out
    assert held_out is not None
    log_q = moved(held_out.x).logits.detach().log_softmax(1)
    return -sum(float(log_q[n, label]) for n, label in enumerate(held_out.y.tolist())) / len(held_out)


def entries(case: Case) -> Iterator[tuple[Tensor, int]]:
    """Every seventh of the weight network's parameters, as (tensor, place)."""
    weigher = method_of(case).weigher
    assert weigher is not None
    for parameter in weigher.parameters():
        for place in range(0, parameter.numel(), 7):
            yield parameter, place


def test_the_meta_gradient_is_the_finite_difference_through_the_students_step() -> None:
    case, rate, shift = make_msd("learned", temperature=2.0, samples=5), 0.3, 1e-4
    weigher = method_of(case).weigher
    assert weigher is not None
    differences = []
    for parameter, place in entries(case):
        found = []
        for sign in (1, -1):
            parameter.data.view(-1)[place] += sign * shift
            found.append(ahead(case, rate))
            parameter.data.view(-1)[place] -= sign * shift
        differences.append((found[0] - found[1]) / (2 * shift))
    before = copy.deepcopy(case.student.state_dict())
    case.method.prepare_step(case.batch, lambda: training_loss(case), rate)
    gradients = [float(parameter.grad.view(-1)[place]) for parameter, place in entries(case)]
    assert max(map(abs, differences)) > 1e-5
    assert gradients == pytest.approx(differences, rel=1e-4, abs=1e-9)
    torch.testing.assert_close(case.student.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in case.student.parameters())


def test_learned_weights_begin_equal_move_by_their_own_step_alone_and_lower_the_loss_ahead() -> None:
    case = make_case("msd", pairing="multimodal", weighting="learned", held_out=6, samples=4, meta_rate=0.05)
    case.student.eval()
    torch.testing.assert_close(weights_of(case), torch.full((4, 3), 1 / 3, dtype=torch.float64))
    assert not any(p.requires_grad for p in case.method.parameters())  # the student's optimiser takes none
    before = ahead(case, 0.3)
    for _ in range(5):
        case.method.prepare_step(case.batch, lambda: training_loss(case), 0.3)
    training_loss(case).backward()
    assert not any(p.requires_grad for p in case.method.parameters())
    assert ahead(case, 0.3) < before
    assert not torch.allclose(weights_of(case), weights_of(case).new_full((4, 3), 1 / 3), atol=1e-3)


def test_the_weight_networks_optimiser_is_in_the_methods_state() -> None:
    straight, resumed = (make_case("msd", pairing="multimodal", weighting="learned", held_out=2) for _ in range(2))
    straight.student.eval(), resumed.student.eval()

    def step(case: Case) -> None:
        case.method.prepare_step(case.batch, lambda: training_loss(case), 0.1)

    step(straight)
    resumed.method.load_state_dict(copy.deepcopy(straight.method.state_dict()))
    step(straight)
    step(resumed)
    ours, theirs = (dict(case.method.named_parameters()) for case in (straight, resumed))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


LEARNED = {
    "pairing": "multimodal",
    "settings": {"weighting": "learned", "hidden": 8, "meta_rate": 0.05},
    "training": {"held_out": 0.1, "epochs": 2},
    "network": {"layers": 1},
}


@pytest.mark.parametrize("change", [{}, {"training": {**LEARNED["training"], "augmentation": {"noise": 0.1}}}])
def test_a_trial_with_learned_weights_that_is_interrupted_after_every_step_ends_with_the_same_numbers(
    lab: Any, numbers_of: Any, change: dict[str, Any]
) -> None:
    config = lab.student("msd", **{**LEARNED, **change})
    whole = lab.run(config, number=0)
    for interruptions in range(100):
        try:
            lab.run(config, number=1, asked_to_end=lambda: True)
            break
        except Preempted:
            torch.manual_seed(interruptions)  # whoever goes on is another process
    assert interruptions == 6
    expected = numbers_of(whole)
    assert numbers_of(lab.place(config, number=1)) == expected
    curves = [expected["curves"][f"train_weight_{m}"] for m in ("video", "audio", "text")]
    assert [sum(values) for values in zip(*curves, strict=True)] == pytest.approx([1, 1])
    assert abs(curves[0][-1] - 1 / 3) > 1e-3


@pytest.mark.parametrize("method", ["no_kd", "kd"])
def test_a_multimodal_trial_is_validated_and_tested_on_all_modalities(lab: Any, method: str) -> None:
    place = lab.run(lab.student(method, pairing="multimodal", evaluate_test=True, network={"layers": 1}))
    result = read_result(place.result)
    assert result.status is Status.COMPLETE
    assert set(result.metrics) == set(result.predictions) == {"valid", "test"}
    assert set(result.standardisation) == {"video", "audio", "text"}
