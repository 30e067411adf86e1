"""A run that was interrupted ends with the numbers of one that was not, bit for bit."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmkd.config import StudentConfig, TeacherConfig
from mmkd.rundir import TrialDir
from mmkd.training.trainer import Preempted
from mmkd.trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps

    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]

PER_EPOCH, EPOCHS = 3, 4
TOTAL = PER_EPOCH * EPOCHS
"""Optimiser steps of a run."""
AUGMENTED = {"noise": 0.1, "scale": 0.1, "crop": 0.3, "rotation": 20}
DROPPED = {"embedding": 0.2, "attention": 0.2, "residual": 0.2, "relu": 0.2, "output": 0.2}
RESTLESS = {"patience": 1, "schedule": "plateau", "learning_rate": 0.5}
"""Far too large a learning rate, which drops before the last epoch."""

FLAVOURS: dict[str, tuple[str, dict[str, Any]]] = {
    "teacher, plateau, augmentation": ("teacher", {"training": {**RESTLESS, "augmentation": AUGMENTED}}),
    "no_kd, cosine, dropout": ("no_kd", {"network": {"dropout": DROPPED}, "training": {"schedule": "cosine"}}),
    "crd final, bank, plateau": ("crd", {"level": "final", "training": RESTLESS}),
    "crd penultimate, bank, augmentation": (
        "crd",
        {"level": "penultimate", "training": {"augmentation": AUGMENTED, "schedule": "cosine"}},
    ),
    "crd maps, sampled rows, dropout, mask": (
        "crd",
        {"level": "attention_maps", "settings": {"rows": 2}, "network": {"dropout": DROPPED, "mask": "mult"}},
    ),
    "crd maps, bank of sampled rows": (
        "crd",
        {"level": "attention_maps", "settings": {"rows": 1, "estimator": "bank", "embedding": 4}},
    ),
    "crd features, mean readout": ("crd", {"level": "post_attention", "network": {"readout": "mean"}}),
}


def make(lab: Lab, flavour: str, **changes: Any) -> TeacherConfig | StudentConfig:
    method, settings = FLAVOURS[flavour]
    settings = {**settings, **changes}
    settings["training"] = {**settings.get("training", {}), "epochs": EPOCHS}
    return lab.teacher(**settings, seed=3) if method == "teacher" else lab.student(method, **settings)


def go_on(config: TeacherConfig | StudentConfig, place: TrialDir, steps: Steps) -> int:
    """Run until it does not ask to be called again; how often it was interrupted."""
    interruptions = 0
    while True:
        try:
            run_trial(config, place.path, asked_to_end=steps.asked_to_end)
            return interruptions
        except Preempted:
            interruptions += 1
            # Whoever goes on is another process: nothing of this one's generators may help it.
            torch.manual_seed(random.Random(interruptions).randrange(2**31))


def unbroken(lab: Lab, config: TeacherConfig | StudentConfig, numbers_of: Numbers) -> dict[str, Any]:
    place = lab.run(config)
    found = numbers_of(place)
    place.path.rename(place.path.with_name("unbroken"))
    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_run_that_is_interrupted_after_every_step_ends_with_the_same_numbers(
    flavour: str, lab: Lab, steps: Steps, numbers_of: Numbers
) -> None:
    config = make(lab, flavour)
    expected = unbroken(lab, config, numbers_of)
    assert steps.made == TOTAL
    steps.end_after = set(range(TOTAL + 1, 2 * TOTAL + 1))
    place = lab.place(config)
    assert go_on(config, place, steps) == TOTAL
    assert steps.made == 2 * TOTAL
    assert numbers_of(place) == expected
    assert [line["epoch"] for line in expected["lines"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("step", range(1, TOTAL + 1))
def test_one_interruption_after_any_step_changes_nothing(
    step: int, lab: Lab, steps: Steps, numbers_of: Numbers
) -> None:
    config = make(lab, "crd final, bank, plateau", network={"dropout": DROPPED})
    expected = unbroken(lab, config, numbers_of)
    rates = expected["curves"]["learning_rate"]
    assert rates[0] == 0.5
    assert rates[-1] == 0.25
    steps.end_after = {TOTAL + step}
    place = lab.place(config)
    assert go_on(config, place, steps) == 1
    assert numbers_of(place) == expected


def test_the_interrupted_run_says_where_it_ended_and_leaves_no_result(lab: Lab, steps: Steps) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    steps.end_after = {5}
    with pytest.raises(Preempted, match="epoch 2, step 2 of 3"):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    assert place.checkpoint.exists()
    assert not place.result.exists()
    assert not place.weights.exists()
    assert [json.loads(line)["epoch"] for line in place.metrics.read_text().splitlines()] == [1]


def test_a_signal_between_two_looks_at_it_is_obeyed_with_a_checkpoint(lab: Lab, steps: Steps) -> None:
    """Whenever a run says that it was asked to end, the step that it names is in its checkpoint."""
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    looks: list[int] = []

    def asked_in_the_second_look() -> bool:
        looks.append(steps.made)
        return steps.made == 2 and looks.count(2) > 1

    with pytest.raises(Preempted, match="step 2 of 3"):
        for _ in range(2):  # where a run looks once a step the first step at which it looks is late enough
            run_trial(config, place.path, asked_to_end=asked_in_the_second_look)
            steps.made = 2
            place.result.unlink()
    assert place.checkpoint.exists()


def test_a_long_epoch_is_checkpointed_within(
    lab: Lab, steps: Steps, numbers_of: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(lab, "crd final, bank, plateau")
    expected = unbroken(lab, config, numbers_of)
    monkeypatch.setattr("mmkd.training.trainer.CHECKPOINT_SECONDS", 0.0)
    place = lab.place(config)

    def killed() -> bool:
        if steps.made == TOTAL + 5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, place.path, asked_to_end=killed)
    steps.made = 0
    run_trial(config, place.path)
    assert TOTAL - 5 <= steps.made <= TOTAL - 4  # only what the checkpoint does not know is done again
    assert numbers_of(place) == expected


def test_a_kill_between_metrics_and_checkpoint_leaves_one_line_an_epoch(
    lab: Lab, numbers_of: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr("mmkd.training.trainer.save_checkpoint", killed)
            with pytest.raises(KeyboardInterrupt):
                run_trial(config, place.path)
        assert len(place.metrics.read_text().splitlines()) == 1
    run_trial(config, place.path)
    assert numbers_of(place) == expected


@pytest.mark.parametrize("where", ["save_weights", "write_result"])
def test_a_kill_while_the_run_finishes_changes_nothing(
    where: str, lab: Lab, steps: Steps, numbers_of: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(lab, "crd penultimate, bank, augmentation")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"mmkd.trial.{where}", killed)
        with pytest.raises(KeyboardInterrupt):
            run_trial(config, place.path)
    steps.made = 0
    run_trial(config, place.path)
    assert steps.made == PER_EPOCH  # the last epoch again
    assert numbers_of(place) == expected


def test_a_torn_metrics_line_is_cut_on_resuming(lab: Lab, steps: Steps, numbers_of: Numbers) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)
    steps.end_after = {TOTAL + 5}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    with place.metrics.open("a") as file:
        file.write('{"epoch": 2, "learning_r')
    run_trial(config, place.path)
    assert numbers_of(place) == expected


def test_metrics_lines_that_a_lost_node_had_not_written_are_there_in_the_end(
    lab: Lab, steps: Steps, numbers_of: Numbers
) -> None:
    """The metrics file is not flushed to disk as the checkpoint is, so after a power cut it may know less."""
    config = make(lab, "no_kd, cosine, dropout")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)
    steps.end_after = {TOTAL + 5}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    place.metrics.unlink()
    run_trial(config, place.path)
    assert numbers_of(place)["lines"] == expected["lines"]


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "garbage", "bit flip", "foreign", "other configuration", "a tensor"]
)
def test_a_checkpoint_that_cannot_be_used_is_said_and_the_run_begins_again(
    damage: str, lab: Lab, steps: Steps, numbers_of: Numbers, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(lab, "crd final, bank, plateau")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)
    steps.end_after = {TOTAL + 5}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    content = bytearray(place.checkpoint.read_bytes())
    if damage == "truncated":
        place.checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        place.checkpoint.write_bytes(b"")
    elif damage == "garbage":
        place.checkpoint.write_bytes(random.Random(0).randbytes(5000))
    elif damage == "bit flip":
        content[len(content) // 2] ^= 0x40
        place.checkpoint.write_bytes(content)
    elif damage == "foreign":
        torch.save({"epoch": 3}, place.checkpoint)
    elif damage == "a tensor":
        torch.save(torch.zeros(3), place.checkpoint)
    else:
        state = torch.load(place.checkpoint, weights_only=True)
        torch.save({**state, "identity": "0" * 64}, place.checkpoint)
    capsys.readouterr()
    run_trial(config, place.path)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(f"warning: {place.checkpoint}: ")
    assert warning.endswith("the trial begins again\n")
    assert numbers_of(place) == expected


def test_a_checkpoint_truncated_anywhere_is_noticed(lab: Lab, steps: Steps) -> None:
    from mmkd.training.checkpoint import CheckpointError, read_checkpoint

    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    steps.end_after = {1}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    content = place.checkpoint.read_bytes()
    for length in [*range(0, 200, 13), *range(200, len(content), len(content) // 25), len(content) - 1]:
        place.checkpoint.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(place.checkpoint, "x", torch.device("cpu"))


def test_leftovers_of_a_killed_write_are_removed_and_others_writers_are_left(lab: Lab) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    mine, theirs = place.path / ".tmp-0123456789ab-checkpoint.pt", place.path / ".tmp-0123456789ab-attempt"
    mine.touch()
    theirs.touch()
    run_trial(config, place.path)
    assert not mine.exists()
    assert theirs.exists()
