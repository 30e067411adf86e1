"""A run that was interrupted ends with the numbers of one that was not, bit for bit."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmkd.checksum import CHECKSUM_BYTES, checksum_line, verify_checksum
from mmkd.config import StudentConfig, TeacherConfig, identity
from mmkd.rundir import TrialDir
from mmkd.training.checkpoint import CheckpointError, read_checkpoint
from mmkd.training.trainer import Preempted
from mmkd.trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps

    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]

PER_EPOCH = 3
"""Optimiser steps of an epoch."""
AUGMENTED = {"noise": 0.1, "scale": 0.1, "shift": 0.1, "crop": 0.2, "warp": 0.1, "rotation": 0.3}
DROPPED = {"embedding": 0.2, "attention": 0.2, "residual": 0.2, "relu": 0.2, "output": 0.2}
RESTLESS = {"patience": 1, "schedule": "plateau", "learning_rate": 0.3, "epochs": 8}
"""So large a learning rate that it drops before the last epoch."""

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
    "edam, bf16, dropout": ("edam", {"network": {"dropout": DROPPED}, "training": {"precision": "bf16"}}),
    "crd features, mean readout": ("crd", {"level": "post_attention", "network": {"readout": "mean"}}),
}


def make(lab: Lab, flavour: str, **changes: Any) -> TeacherConfig | StudentConfig:
    method, settings = FLAVOURS[flavour]
    settings = {**settings, **changes}
    settings["training"] = {"epochs": 2, **settings.get("training", {})}
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
    total = steps.made
    assert total == PER_EPOCH * config.training.epochs
    steps.end_after = set(range(total + 1, 2 * total + 1))
    place = lab.place(config)
    assert go_on(config, place, steps) == total
    assert steps.made == 2 * total
    assert numbers_of(place) == expected
    assert [line["epoch"] for line in expected["lines"]] == list(range(1, config.training.epochs + 1))


def test_one_interruption_after_any_step_changes_nothing(lab: Lab, steps: Steps, numbers_of: Numbers) -> None:
    config = make(lab, "crd final, bank, plateau", network={"dropout": DROPPED})
    expected = unbroken(lab, config, numbers_of)
    rates = expected["curves"]["learning_rate"]
    assert rates[0] > rates[-1]
    total = steps.made
    for step in range(1, total + 1):
        steps.made, steps.end_after = 0, {step}
        place = lab.place(config)
        assert go_on(config, place, steps) == 1
        assert numbers_of(place) == expected
        place.path.rename(place.path.with_name(f"interrupted-{step}"))


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


@pytest.mark.parametrize("look", range(1, 6))
def test_whenever_the_signal_comes_the_step_that_the_run_names_is_in_its_checkpoint(look: int, lab: Lab) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    looks: list[bool] = []

    def asked_to_end() -> bool:
        looks.append(len(looks) + 1 >= look)
        return looks[-1]

    with pytest.raises(Preempted) as stopped:
        run_trial(config, place.path, asked_to_end=asked_to_end)
    checkpoint = read_checkpoint(place.checkpoint, identity(config), torch.device("cpu"))
    assert checkpoint is not None
    progress = checkpoint.progress
    assert f"epoch {progress.epoch + 1}, step {progress.step} of 3" in str(stopped.value)


def test_a_long_epoch_is_checkpointed_within(
    lab: Lab, steps: Steps, numbers_of: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(lab, "crd final, bank, plateau")
    expected = unbroken(lab, config, numbers_of)
    monkeypatch.setattr("mmkd.training.trainer.CHECKPOINT_SECONDS", 0.0)
    place = lab.place(config)

    total = steps.made

    def killed() -> bool:
        if steps.made == total + 5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, place.path, asked_to_end=killed)
    steps.made = 0
    run_trial(config, place.path)
    assert total - 5 <= steps.made <= total - 4  # only what the checkpoint does not know is done again
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
    steps.end_after = {steps.made + 5}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    with place.metrics.open("a") as file:
        file.write('{"epoch": 2, "learning_r')
    run_trial(config, place.path)
    assert numbers_of(place) == expected


def test_an_epochs_line_is_on_disk_before_the_checkpoint_that_counts_on_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a node that loses power leaves fewer lines than the checkpoint has epochs."""
    flushed: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split("-")[-1])
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", watched)
    lab.run(make(lab, "no_kd, cosine, dropout"))
    begun = flushed.index("metrics.jsonl") + 1  # the empty one
    assert flushed[begun : begun + 2] == ["metrics.jsonl", "checkpoint.pt"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "foreign", "other configuration"])
def test_a_checkpoint_that_cannot_be_used_is_said_and_the_run_begins_again(
    damage: str, lab: Lab, steps: Steps, numbers_of: Numbers, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(lab, "crd final, bank, plateau")
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)
    steps.end_after = {steps.made + 5}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    content = place.checkpoint.read_bytes()
    if damage == "truncated":
        place.checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        place.checkpoint.write_bytes(b"")
    elif damage == "garbage":
        place.checkpoint.write_bytes(random.Random(0).randbytes(5000))
    elif damage == "foreign":
        torch.save({"epoch": 3}, place.checkpoint)
    else:
        state = torch.load(io.BytesIO(verify_checksum(content)), weights_only=True)
        other = io.BytesIO()
        torch.save({**state, "identity": "0" * 64}, other)
        place.checkpoint.write_bytes(other.getvalue() + checksum_line(other.getvalue()))
    capsys.readouterr()
    run_trial(config, place.path)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(f"warning: {place.checkpoint}: ")
    assert warning.endswith("the trial begins again\n")
    assert numbers_of(place) == expected


def test_a_checkpoint_truncated_anywhere_is_noticed(lab: Lab, steps: Steps) -> None:
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


def test_a_checkpoint_with_a_single_bit_flipped_anywhere_is_noticed(lab: Lab, steps: Steps) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    steps.end_after = {1}
    with pytest.raises(Preempted):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    content, seeded = place.checkpoint.read_bytes(), random.Random(0)
    for where in [
        0,
        len(content) - 1,
        len(content) - CHECKSUM_BYTES,
        *(seeded.randrange(len(content)) for _ in range(60)),
    ]:
        flipped = bytearray(content)
        flipped[where] ^= 1 << seeded.randrange(8)
        place.checkpoint.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="checksum"):
            read_checkpoint(place.checkpoint, identity(config), torch.device("cpu"))
    place.checkpoint.write_bytes(content)
    assert read_checkpoint(place.checkpoint, identity(config), torch.device("cpu")) is not None


def test_epochs_that_the_metrics_file_has_lost_are_written_again(lab: Lab, steps: Steps, numbers_of: Numbers) -> None:
    """A disk that fails may take lines which the checkpoint counts on; the checkpoint knows them."""
    config = make(lab, "no_kd, cosine, dropout", training={"schedule": "cosine", "epochs": 3})
    expected = unbroken(lab, config, numbers_of)
    place = lab.place(config)
    steps.end_after = {steps.made + 2 * PER_EPOCH + 1}
    with pytest.raises(Preempted, match="epoch 3"):
        run_trial(config, place.path, asked_to_end=steps.asked_to_end)
    first, second = place.metrics.read_text().splitlines(keepends=True)
    place.metrics.write_text(first + second[:20])
    run_trial(config, place.path)
    assert numbers_of(place) == expected


def test_leftovers_of_a_killed_write_are_removed_and_others_writers_are_left(lab: Lab) -> None:
    config = make(lab, "no_kd, cosine, dropout")
    place = lab.place(config)
    mine, theirs = place.path / ".tmp-0123456789ab-checkpoint.pt", place.path / ".tmp-0123456789ab-attempt"
    mine.touch()
    theirs.touch()
    run_trial(config, place.path)
    assert not mine.exists()
    assert theirs.exists()
