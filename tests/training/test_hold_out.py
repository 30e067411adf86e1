"""The part held out of train: a share of each class, the same for every row and seed, and of no use to training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmkd.data.hold_out import hold_out
from mmkd.data.tensors import Samples
from mmkd.errors import UserError
from mmkd.result_file import read_result
from mmkd.training.lesson import make_lesson, prepare_torch
from mmkd.training.trainer import Trainer

COUNTS = [100, 31, 10, 4, 1]


def make_samples() -> Samples:
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    places = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    x = {"video": torch.arange(len(labels)).float()[:, None, None].expand(-1, 2, 3)}
    return Samples(x, labels[places], labels[places].float(), [f"id {n}" for n in range(len(labels))])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, [10, 3, 1, 0, 0]), (0.5, [50, 16, 5, 2, 0]), (0.99, [99, 30, 9, 3, 0])]
)
def test_it_is_a_share_of_each_class_and_leaves_some_of_each(share: float, expected: list[int]) -> None:
    samples = make_samples()
    rest, held = hold_out(samples, share)
    assert held is not None
    assert held.y.bincount(minlength=len(COUNTS)).tolist() == expected
    assert set(rest.ids).isdisjoint(held.ids)
    assert sorted(rest.ids + held.ids) == sorted(samples.ids)
    for part in (rest, held):  # everything of a sample goes with it
        places = [int(name.removeprefix("id ")) for name in part.ids]
        assert places == sorted(places)
        assert part.x["video"][:, 0, 0].tolist() == places
        assert part.y.tolist() == samples.y[places].tolist()
        assert part.scores is not None
        assert part.scores.tolist() == part.y.tolist()


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_where_nothing_is_held_out_train_is_as_it_was(share: float) -> None:
    samples = make_samples()
    assert hold_out(samples, share) == (samples, None)


def test_it_does_not_depend_on_the_random_generators_and_does_not_move_them() -> None:
    samples = make_samples()
    parts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        _, held = hold_out(samples, 0.2)
        assert held is not None
        assert torch.equal(torch.get_rng_state(), before)
        parts.append(held.ids)
    assert parts[0] == parts[1]


def lesson_of(lab: Any, config: Any) -> Any:
    return make_lesson(config, lab.place(config), prepare_torch(config))


def test_every_row_and_seed_on_a_data_set_loses_the_same_samples(lab: Any) -> None:
    held_out = {"training": {"held_out": 0.25}}
    learned = {"pairing": "multimodal", "settings": {"weighting": "learned"}}
    configs = [
        lab.student("no_kd", **held_out),
        lab.student("kd", pairing="multimodal", seed=5, **held_out),
        lab.student("crd", level="final", primary="audio", **held_out),
        lab.student("msd", seed=2, **learned, **held_out),
        lab.teacher(seed=4, **held_out),
    ]
    lessons = [lesson_of(lab, config) for config in configs]
    ids = lessons[0].train.ids
    assert len(ids) == 36
    assert all(lesson.train.ids == ids for lesson in lessons)
    assert torch.equal(lessons[0].train.y.bincount(), torch.tensor([12, 12, 12]))
    problem = lessons[3].method.problem
    assert set(problem.held_out.ids).isdisjoint(ids)
    assert len(problem.held_out.ids) == 12
    assert set(problem.held_out.x) == {"video", "audio", "text"}
    assert torch.equal(problem.labels, lessons[3].train.y)


def test_no_training_step_sees_a_sample_that_is_held_out(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: seen.update(batch.index.tolist()) or step(self, batch))
    result = read_result(lab.run(lab.student(training={"held_out": 0.25})).result)
    assert seen == set(range(36))
    assert len(result.predictions["valid"].labels) == 24


def test_held_out_makes_another_configuration_and_is_below_one(lab: Any) -> None:
    from mmkd.config import Training, from_json, identity, to_json

    assert Training().held_out == 0
    plain, held_out = lab.student(), lab.student(training={"held_out": 0.1})
    assert identity(plain) != identity(held_out)
    value = to_json(held_out)
    value["training"]["held_out"] = 1.0
    with pytest.raises(UserError, match=r"training\.held_out: .*less than 1 \(is 1\.0\)"):
        from_json(value, "config.json")
