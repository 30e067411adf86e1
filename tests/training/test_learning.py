"""What a run computes: terms, weights, selection, and how it can end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mmkd.config import StudentConfig, TeacherConfig
from mmkd.distillation.frozen_teacher import Batch
from mmkd.metrics_log import read_metrics
from mmkd.result_file import Status, read_result
from mmkd.rundir import TrialDir
from mmkd.training.evaluation import predict
from mmkd.training.lesson import Lesson, make_lesson, prepare_torch
from mmkd.trial import Superseded, run_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps

    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]

STILL = {"embedding": 0, "attention": 0, "residual": 0, "relu": 0, "output": 0}
FROZEN = {"learning_rate": 1e-30, "epochs": 1}


def lesson_of(lab: Lab, config: TeacherConfig | StudentConfig) -> Lesson:
    """What the run of `config` begins with."""
    return make_lesson(config, lab.place(config), prepare_torch(config))


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> float:
    """By hand: the target is 1 - smoothing on the label and smoothing spread over all classes."""
    total = 0.0
    for row, label in zip(logits.astype(float), labels, strict=True):
        log_p = row - np.log(np.exp(row).sum())
        total -= (1 - smoothing) * log_p[label] + smoothing * log_p.mean()
    return total / len(labels)


# --- seeds and beginnings


def test_the_same_seed_gives_the_same_numbers_and_another_others(lab: Lab, numbers_of: Numbers) -> None:
    config = lab.student("crd", level="final")
    first, again = (numbers_of(lab.run(config, number)) for number in (0, 1))
    other = numbers_of(lab.run(lab.student("crd", level="final", seed=1), 2))
    assert first == again
    assert first["curves"] != other["curves"]
    assert first["weights"] != other["weights"]


def test_threads_of_torch_and_the_generator_of_before_do_not_matter(lab: Lab, numbers_of: Numbers) -> None:
    config = lab.student()
    first = numbers_of(lab.run(config, 0))
    torch.manual_seed(99)
    torch.set_num_threads(2)
    assert numbers_of(lab.run(config, 1)) == first


@pytest.mark.parametrize("level", ["final", "penultimate", "post_attention", "attention_maps"])
def test_the_student_begins_with_the_same_weights_with_and_without_distillation(level: str, lab: Lab) -> None:
    control = lesson_of(lab, lab.student()).network.state_dict()
    taught = lesson_of(lab, lab.student("crd", level=level)).network.state_dict()
    assert list(control) == list(taught)
    assert all(torch.equal(control[name], taught[name]) for name in control)


def test_a_method_without_weight_leaves_the_control(lab: Lab) -> None:
    """Up to rounding, which Adam makes much of where a gradient is 0 (a key's bias), and which no output shows."""
    network = {"dropout": STILL}
    control = read_result(lab.run(lab.student(network=network), 0).result)
    taught = read_result(lab.run(lab.student("crd", level="post_attention", beta=0.0, network=network), 1).result)
    for name, curve in control.curves.items():
        assert taught.curves[name] == pytest.approx(curve, rel=1e-4)


# --- the loss and its terms


def test_the_loss_is_alpha_times_classification_plus_beta_times_distillation(lab: Lab) -> None:
    """Eq. 1, seen at the student's gradients in a step on all of train at once."""
    settings = {"training": {"epochs": 1, "batch_size": 48, "clip": 1e9}, "network": {"dropout": STILL}}
    config = lab.student("crd", level="post_attention", alpha=0.5, beta=0.25, **settings)
    lesson = lesson_of(lab, config)
    assert lesson.method is not None
    lesson.network.train()
    outputs = lesson.network(lesson.train.x, lesson.method.taps())
    batch = Batch(lesson.train.x, lesson.train.y, torch.arange(len(lesson.train)))
    distillation = lesson.method(batch, outputs, lesson.teacher)
    classification = -outputs.logits.log_softmax(1)[torch.arange(48), lesson.train.y].mean()
    parameters = list(lesson.network.parameters())
    parts = []
    for term in (classification, distillation):
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, materialize_grads=True)
        parts.append(torch.cat([g.flatten() for g in gradients]))
    found: list[torch.Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for p in optimizer.param_groups[0]["params"][: len(parameters)]]
        found.append(torch.cat([g.flatten() for g in gradients]).clone())

    hook = register_optimizer_step_pre_hook(look)
    place = lab.run(config)
    hook.remove()
    assert all(part.abs().max() > 1e-3 for part in parts)
    torch.testing.assert_close(found, [0.5 * parts[0] + 0.25 * parts[1]], atol=1e-6, rtol=1e-4)
    (line,) = read_metrics(place)
    assert line["train_classification"] == pytest.approx(classification.item(), rel=1e-5)
    assert line["train_distillation"] == pytest.approx(distillation.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("alpha", "beta", "norm"), [(1.0, 1.0, 1e-3), (1.0, 0.1, 1e-3), (0.2, 1.0, 2e-4), (0.0, 0.5, 5e-4)]
)
def test_gradients_are_clipped_relative_to_alpha_those_of_the_methods_own_parameters_apart(
    lab: Lab, alpha: float, beta: float, norm: float
) -> None:
    config = lab.student("crd", level="final", alpha=alpha, beta=beta, training={"clip": 1e-3})
    network = len(list(lesson_of(lab, config).network.parameters()))
    norms: list[list[float]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = optimizer.param_groups[0]["params"]
        parts = [[p.grad for p in part if p.grad is not None] for part in (parameters[:network], parameters[network:])]
        norms.append([torch.cat([g.flatten() for g in part]).norm().item() for part in parts])

    hook = register_optimizer_step_pre_hook(look)
    lab.run(config)
    hook.remove()
    assert len(norms) == 9
    assert all(both == pytest.approx([norm, norm], rel=0.02) for both in norms)


@pytest.mark.parametrize(("method", "level"), [("kd", None), ("crd", "penultimate")])
def test_only_the_ratio_of_alpha_and_beta_matters(lab: Lab, method: str, level: str | None) -> None:
    """Also where a fixed clipping norm would act at (1, 0.5) and not at (0.2, 0.1)."""
    settings = {"level": level, "temperature": 4.0, "training": {"clip": 0.3}}
    weights = [(1.0, 0.5), (0.2, 0.1), (1.0, 0.1)]
    runs = [lab.run(lab.student(method, alpha=a, beta=b, **settings), n) for n, (a, b) in enumerate(weights)]
    large, small, other = (read_result(run.result) for run in runs)
    one, same, another = (torch.from_numpy(found.predictions["valid"].logits) for found in (large, small, other))
    assert (same - one).abs().max() < 1e-3 < 1e-2 < (another - one).abs().max()
    assert small.curves["valid_loss"] == pytest.approx(large.curves["valid_loss"], rel=1e-4)


def test_training_terms_are_means_over_samples_and_train_sees_the_smoothed_labels(lab: Lab) -> None:
    config = lab.student(network={"dropout": STILL}, training={**FROZEN, "label_smoothing": 0.3})
    lesson = lesson_of(lab, config)  # batches of 20, 20 and 8
    logits = predict(lesson.network, lesson.train).numpy()
    (line,) = read_metrics(lab.run(config))
    expected = cross_entropy(logits, lesson.train.y.numpy(), smoothing=0.3)
    assert line["train_classification"] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(cross_entropy(logits, lesson.train.y.numpy()), rel=1e-3)


def test_the_validation_loss_has_neither_distillation_terms_nor_label_smoothing(lab: Lab) -> None:
    place = lab.run(lab.student("crd", level="final", training={"label_smoothing": 0.3}))
    result = read_result(place.result)
    valid = result.predictions["valid"]
    plain = cross_entropy(valid.logits, valid.labels)
    assert result.curves["valid_loss"][result.best_epoch - 1] == pytest.approx(plain, rel=1e-6)
    assert result.metrics["valid"]["loss"] == pytest.approx(plain, rel=1e-6)
    assert plain != pytest.approx(cross_entropy(valid.logits, valid.labels, 0.3), rel=1e-3)
    assert len(result.curves["train_distillation"]) == 3
    assert min(result.curves["train_distillation"]) > 0
    assert "train_distillation" not in read_result(lab.run(lab.student(), 1).result).curves


# --- selection


def test_the_weights_are_those_of_the_lowest_validation_loss(lab: Lab) -> None:
    best_epochs = []
    for seed in range(4):
        config = lab.student(seed=seed, training={"learning_rate": 0.1, "epochs": 5})
        place = lab.run(config, seed)
        result = read_result(place.result)
        losses = result.curves["valid_loss"]
        assert result.best_epoch == int(np.argmin(losses)) + 1
        assert result.metrics["valid"]["loss"] == min(losses)
        lesson = lesson_of(lab, config)
        lesson.network.load_state_dict(torch.load(place.weights, weights_only=True))
        np.testing.assert_array_equal(predict(lesson.network, lesson.valid).numpy(), result.predictions["valid"].logits)
        best_epochs.append(result.best_epoch)
    assert min(best_epochs) < 5  # neither always the last epoch nor always the first
    assert max(best_epochs) > 1


def test_plateau_lowers_the_rate_after_patience_epochs_without_a_lower_validation_loss(lab: Lab) -> None:
    frozen = {"learning_rate": 1e-7, "epochs": 5, "patience": 1, "factor": 0.25}
    result = read_result(lab.run(lab.student(training=frozen)).result)
    # epoch 1 is the best; 2 and 3 are no better, and 3 is beyond the patience; so are 4 and 5
    assert result.curves["learning_rate"] == pytest.approx([1e-7, 1e-7, 1e-7, 2.5e-8, 2.5e-8], rel=1e-9, abs=0)


def test_cosine_goes_from_the_rate_to_zero(lab: Lab) -> None:
    config = lab.student(training={"schedule": "cosine", "epochs": 4, "learning_rate": 0.01})
    rates = read_result(lab.run(config).result).curves["learning_rate"]
    assert rates == pytest.approx([0.01 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)])


def test_a_run_learns(lab: Lab) -> None:
    config = lab.teacher(training={"epochs": 12, "learning_rate": 0.01}, evaluate_test=True)
    result = read_result(lab.run(config).result)
    assert result.metrics["test"]["accuracy"] > 0.6  # chance is 1/3
    assert result.curves["train_classification"][-1] < 0.5 * result.curves["train_classification"][0]


# --- other ends


def test_an_absurd_learning_rate_ends_as_diverged_and_says_where(lab: Lab) -> None:
    place = lab.place(config := lab.student(training={"learning_rate": 1e30}, evaluate_test=True))
    assert run_trial(config, place.path) is Status.DIVERGED
    result = read_result(place.result)
    assert result.status is Status.DIVERGED
    assert result.reason == "epoch 1: the classification loss of train is nan"
    assert result.metrics == {}
    assert not place.checkpoint.exists()


def test_a_diverged_distillation_term_is_named(lab: Lab) -> None:
    settings: dict[str, Any] = {"level": "post_attention", "temperature": 1e-40, "training": {"batch_size": 48}}
    result = read_result(lab.run(lab.student("crd", **settings)).result)
    assert result.status is Status.DIVERGED
    assert result.reason.startswith("epoch 1: the distillation loss of train is ")


def test_a_late_divergence_keeps_what_the_best_weights_did_on_validation_and_leaves_test_alone(
    lab: Lab, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmkd.training import trainer

    real = trainer.F.cross_entropy

    def poisoned(*arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = real(*arguments, **options)
        return loss * float("inf") if steps.made == 7 else loss

    monkeypatch.setattr(trainer.F, "cross_entropy", poisoned)
    result = read_result(lab.run(lab.student(evaluate_test=True)).result)
    assert result.status is Status.DIVERGED
    assert result.reason.startswith("epoch 3: the classification loss of train is ")
    assert (result.epochs, len(result.curves["valid_loss"])) == (2, 2)
    assert set(result.metrics) == set(result.predictions) == {"valid"}


def test_the_stop_file_prunes_at_the_end_of_the_epoch_with_its_reason(lab: Lab, steps: Steps) -> None:
    config = lab.student(evaluate_test=True)
    place = lab.place(config)
    place.stop.write_text("the median stopped it\n")
    assert run_trial(config, place.path) is Status.PRUNED
    result = read_result(place.result)
    assert (result.status, result.reason, result.epochs) == (Status.PRUNED, "the median stopped it", 1)
    assert steps.made == 3
    assert set(result.metrics) == {"valid"}
    assert len(read_metrics(place)) == 1


def test_a_stop_that_comes_in_the_last_epoch_comes_too_late(lab: Lab) -> None:
    config = lab.student(training={"epochs": 1})
    place = lab.place(config)
    place.stop.touch()
    assert run_trial(config, place.path) is Status.COMPLETE
    assert read_result(place.result).status is Status.COMPLETE


def contents(place: TrialDir) -> dict[str, bytes]:
    return {str(p.relative_to(place.path)): p.read_bytes() for p in place.path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (Status.COMPLETE, {}),
        (Status.DIVERGED, {"training": {"learning_rate": 1e30}}),
    ],
)
def test_a_finished_run_is_left_alone_and_says_how_it_finished(
    status: Status, changes: dict[str, Any], lab: Lab, steps: Steps
) -> None:
    config = lab.student(**changes)
    place = lab.run(config)
    before, made = contents(place), steps.made
    assert run_trial(config, place.path) is status
    assert contents(place) == before
    assert steps.made == made


def test_a_superseded_attempt_ends_before_it_writes(lab: Lab) -> None:
    config = lab.student()
    place = lab.place(config)
    place.attempt.write_text("2\n")
    before = contents(place)
    with pytest.raises(Superseded, match="attempt 2 has taken over from 1"):
        run_trial(config, place.path, attempt=1)
    assert contents(place) == before


@pytest.mark.parametrize("step", [2, 4, 9])
def test_an_attempt_that_is_superseded_while_it_runs_writes_nothing_more(step: int, lab: Lab, steps: Steps) -> None:
    config = lab.student()
    place = lab.place(config)
    place.attempt.write_text("1\n")
    left: Iterator[dict[str, bytes]] | dict[str, bytes] = {}

    def take_over() -> bool:
        nonlocal left
        if steps.made == step:
            place.attempt.write_text("2\n")
            left = contents(place)
        return steps.made == step == 4  # also where it would write a checkpoint in reply to a signal

    with pytest.raises(Superseded):
        run_trial(config, place.path, attempt=1, asked_to_end=take_over)
    assert contents(place) == left
    assert steps.made <= step + 2


# --- whose modalities, whose data


def test_a_student_without_teacher_reads_its_primary_alone(lab: Lab) -> None:
    lesson = lesson_of(lab, lab.student())
    assert list(lesson.train.x) == list(lesson.valid.x) == ["video"]
    assert list(lesson_of(lab, lab.student("crd", level="final")).valid.x) == ["video"]


def test_any_modality_may_be_the_primary_of_a_run(lab: Lab, numbers_of: Numbers) -> None:
    for number, primary in enumerate(("audio", "text")):
        found = numbers_of(lab.run(lab.student("crd", primary=primary, training={"epochs": 1}), number))
        assert found["metrics"]["valid"]["accuracy"] > 0


def test_a_trial_is_deterministic_without_filling_memory_that_it_writes_anyway(lab: Any) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    prepare_torch(lab.student())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
