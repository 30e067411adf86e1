"""Configurations: JSON both ways, what they are hashed by, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmkd.config import (
    ALGORITHM_VERSION,
    StudentConfig,
    TeacherConfig,
    check_version,
    digest,
    from_json,
    identity,
    to_json,
)
from mmkd.errors import UserError

ORIGIN = Path("trials/7/config.json")

TEACHER: dict[str, Any] = {
    "algorithm": 1,
    "data": {"path": "/data/a.h5", "fingerprint": "f" * 64},
    "split": {
        "scheme": "group-folds",
        "folds": 4,
        "valid_groups": 2,
        "seed": 5,
        "replicate": 6,
        "digest": "a" * 64,
    },
    "network": {
        "width": 16,
        "heads": 4,
        "layers": 2,
        "fusion_layers": 3,
        "kernel": 5,
        "kernels": {"text": 1},
        "conv_bias": False,
        "head": "residual",
        "readout": "mean",
        "mask": "mult",
        "self_attention": "updated",
        "dropout": {
            "embedding": 0.3,
            "attention": 0.2,
            "attention_from": {"text": 0.1},
            "attention_fusion": 0.4,
            "residual": 0.15,
            "relu": 0.05,
            "output": 0.25,
        },
    },
    "training": {
        "epochs": 7,
        "batch_size": 24,
        "learning_rate": 0.002,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "patience": 5,
        "factor": 0.3,
        "clip": 0.8,
        "label_smoothing": 0.1,
        "held_out": 0.05,
        "augmentation": {"noise": 0.1, "scale": 0.2, "crop": 0.3, "rotation": 30.0, "shift": 0.4, "warp": 0.15},
        "precision": "bf16",
    },
    "seed": 3,
    "evaluate_test": True,
    "threads": 2,
    "device": "cpu",
    "role": "teacher",
    "branch": "audio",
    "tuned_from": "0123456789abcdef",
}
STUDENT: dict[str, Any] = {
    **deepcopy(TEACHER),
    "role": "student",
    "primary": "video",
    "pairing": "others",
    "distillation": {
        "method": "crd",
        "level": "attention_maps",
        "settings": {"estimator": "in_batch", "rows": 2},
        "alpha": 0.4,
        "beta": 0.6,
        "temperature": 0.07,
    },
    "teacher": deepcopy(TEACHER),
}
del STUDENT["branch"], STUDENT["tuned_from"]

ON_FILE: dict[str, Any] = deepcopy(STUDENT)
"""On the file's own parts, as all configurations were before splits were drawn."""
del ON_FILE["split"], ON_FILE["teacher"]["split"]

OTHER: dict[Any, Any] = {
    "residual": "plain",
    "mean": "last",
    "0123456789abcdef": "fedcba9876543210",
    "mult": "none",
    "updated": "fixed",
    "cosine": "plateau",
    "cpu": "auto",
    "bf16": "fp32",
}
OWN = ["data.path", "threads", "device", *(f"split.{k}" for k in ("folds", "valid_groups", "seed", "replicate"))]
INCIDENTAL = {*OWN, *(f"teacher.{key}" for key in OWN)}


def leaves(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def changed(value: dict[str, Any], path: str, to: Any = ...) -> dict[str, Any]:
    """A copy where the value at `path` is `to`, or another one that is allowed."""
    copy = deepcopy(value)
    *parents, last = path.split(".")
    place = copy
    for key in parents:
        place = place[key]
    old = place[last]
    if to is not ...:
        place[last] = to
    elif isinstance(old, bool):
        place[last] = not old
    elif isinstance(old, str):
        place[last] = OTHER.get(old, old + "x")
    elif last in ("width", "heads"):
        place[last] = 2 * old if last == "width" else old // 2
    else:
        place[last] = old + 1 if isinstance(old, int) else old / 2
    return copy


def parse(value: dict[str, Any]) -> TeacherConfig | StudentConfig:
    return from_json(json.loads(json.dumps(value)), ORIGIN)


@pytest.mark.parametrize("value", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_a_configuration_is_written_whole_and_read_back_equal(value: dict[str, Any]) -> None:
    config = parse(value)
    assert to_json(config) == value
    assert from_json(json.loads(json.dumps(to_json(config))), ORIGIN) == config
    assert isinstance(config, StudentConfig if value is STUDENT else TeacherConfig)


def test_this_test_knows_every_key_that_there_is() -> None:
    """A new key must be added above, so that the tests below decide whether it belongs to the hash."""
    for model, value in ((TeacherConfig, TEACHER), (StudentConfig, STUDENT)):
        assert set(model.model_fields) == set(value)
    config = parse(STUDENT)
    assert isinstance(config, StudentConfig)
    for part, key in (
        (config.network, "network"),
        (config.training, "training"),
        (config.split, "split"),
        (config.distillation, "distillation"),
    ):
        assert set(type(part).model_fields) == set(STUDENT[key])
    assert set(type(config.network.dropout).model_fields) == set(STUDENT["network"]["dropout"])
    assert set(type(config.training.augmentation).model_fields) == set(STUDENT["training"]["augmentation"])


DECIDING = [path for path in leaves(STUDENT) if not path.endswith(("role", "algorithm", "scheme", "digest"))]


@pytest.mark.parametrize("path", DECIDING)
def test_the_hash_leaves_out_facts_of_the_machine_and_how_a_split_was_drawn_and_nothing_else(path: str) -> None:
    changed_hash = identity(parse(changed(STUDENT, path)))
    assert (changed_hash == identity(parse(STUDENT))) == (path in INCIDENTAL)


def test_the_hash_of_a_teacher_or_student_depends_on_the_split_that_was_drawn() -> None:
    other = {**STUDENT["split"], "digest": "b" * 64}
    assert identity(parse({**TEACHER, "split": other})) != identity(parse(TEACHER))
    student = {**STUDENT, "split": other, "teacher": {**TEACHER, "split": other}}
    assert identity(parse(student)) != identity(parse(STUDENT))
    drawn = {**other, "scheme": "resample-valid", "folds": None}
    assert identity(parse({**TEACHER, "split": drawn})) == identity(parse({**TEACHER, "split": other}))


@pytest.mark.parametrize("split", [None, {**TEACHER["split"], "digest": "b" * 64}])
def test_a_teacher_of_another_split_is_refused_because_it_may_know_the_test_samples(split: Any) -> None:
    with pytest.raises(UserError, match=r"config\.json: .*the teacher's split is not the student's"):
        parse({**STUDENT, "split": split})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "file"}, "split: folds = 4 needs scheme = 'group-folds' \\(is 'file'\\)"),
        ({"scheme": "file", "folds": None}, "split: valid_groups = 2 needs a scheme that draws"),
        ({"scheme": "file", "folds": None, "valid_groups": None}, "split: scheme = 'file' draws nothing"),
        ({"folds": 1}, r"split\.folds: .* greater than or equal to 2 \(is 1\)"),
        ({"scheme": "folds"}, r"split\.scheme: .*'group-folds'.* \(is 'folds'\)"),
    ],
)
def test_split_settings_that_mean_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse({**TEACHER, "split": {**TEACHER["split"], **change}})


def test_the_hash_of_a_teacher_is_that_of_the_same_teacher_elsewhere() -> None:
    elsewhere = {**TEACHER, "data": {**TEACHER["data"], "path": "/else.h5"}, "threads": 9, "device": "cuda"}
    assert identity(parse(elsewhere)) == identity(parse(TEACHER))
    assert identity(parse(changed(TEACHER, "branch", None))) != identity(parse(TEACHER))
    assert identity(parse(changed(STUDENT, "teacher", None))) != identity(parse(STUDENT))


def test_the_hash_depends_on_the_algorithm_version() -> None:
    config = parse(TEACHER)
    assert identity(config.model_copy(update={"algorithm": 0})) != identity(config)


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    def reverse(value: Any) -> Any:
        return {k: reverse(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    assert identity(parse(reverse(STUDENT))) == identity(parse(STUDENT))
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"b": [2, 1]}) != digest({"b": [1, 2]})


def test_the_hash_stays_what_it_was() -> None:
    """Teachers and rows on disk are found by it. Where this fails on purpose, raise ALGORITHM_VERSION."""
    expected = "a5bb6ebba620aa9b2b8ba80d9f617dec61c86e577e0ba45a6a9ab821ad763f90"
    assert digest({"a": [1, 0.5, None, True, "ä"]}) == expected


LATER: dict[str, Any] = {
    "training.precision": "fp32",
    "network.self_attention": "fixed",
    "network.dropout.attention_from": {},
    "network.dropout.attention_fusion": None,
}
"""Keys that came after the first version, and their defaults."""


def test_later_keys_at_their_defaults_are_not_in_the_hash_so_that_runs_from_before_them_are_found() -> None:
    with_them, without = deepcopy(ON_FILE), deepcopy(ON_FILE)
    for path, default in LATER.items():
        *parents, last = path.split(".")
        for of_student in (with_them, without):
            for value in (of_student, of_student["teacher"]):
                place = reduce(lambda place, key: place[key], parents, value)
                place[last] = default
                if of_student is without:
                    del place[last]
    with_them["teacher"]["tuned_from"] = ""
    without["teacher"].pop("tuned_from", None)
    usual = parse(with_them)
    assert to_json(usual) == without
    assert parse(without) == usual
    assert identity(usual) == "cbbe74031b273b510d22918963320a54748d723682c9f29b6e94cbc08e62fe68"


@pytest.mark.parametrize("path", [p for p in leaves(STUDENT) if "settings" not in p])
def test_an_unknown_key_is_named_wherever_it_stands(path: str) -> None:
    *parents, last = path.split(".")
    if parents[-1:] in (["kernels"], ["attention_from"]):
        return
    copy = deepcopy(STUDENT)
    place = copy
    for key in parents:
        place = place[key]
    place[f"{last}_typo"] = place[last]
    with pytest.raises(UserError) as refused:
        parse(copy)
    assert str(refused.value).startswith(f"{ORIGIN}: student.{path}_typo: unknown key")


def value_at(path: str) -> Any:
    return reduce(lambda place, key: place[key], path.split("."), STUDENT)


FLOATS = [path for path in leaves(STUDENT) if isinstance(value_at(path), float)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", FLOATS)
def test_what_is_not_a_number_is_named(path: str, number: float) -> None:
    with pytest.raises(UserError) as refused:
        parse(changed(STUDENT, path, number))
    assert f"student.{path}: " in str(refused.value)
    assert f"(is {number})" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("training.learning_rate", 0, "greater than 0 (is 0)"),
        ("training.learning_rate", "fast", "(is 'fast')"),
        ("training.epochs", 0, "greater than or equal to 1 (is 0)"),
        ("training.epochs", 2.5, "(is 2.5)"),
        ("training.factor", 1.0, "less than 1 (is 1.0)"),
        ("training.precision", "fp16", "'fp32' or 'bf16' (is 'fp16')"),
        ("training.schedule", "linear", "'plateau' or 'cosine' (is 'linear')"),
        ("network.dropout.relu", 1.0, "less than 1 (is 1.0)"),
        ("network.width", 18, "heads = 4 does not divide width = 18"),
        ("network.mask", "causal", "'none' or 'mult' (is 'causal')"),
        ("distillation.alpha", 1.1, "less than or equal to 1 (is 1.1)"),
        ("distillation.beta", -0.1, "greater than or equal to 0 (is -0.1)"),
        ("distillation.temperature", 0, "greater than 0 (is 0)"),
        ("seed", -1, "greater than or equal to 0 (is -1)"),
        ("role", "assistant", "'teacher', 'student'"),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_what_is(path: str, value: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(changed(STUDENT, path, value))
    message = str(refused.value)
    assert message.startswith(f"{ORIGIN}: ")
    assert said in message
    assert path.split(".")[0] in message
    assert "\n" not in message


def test_all_complaints_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"training\.epochs.*; .*seed"):
        parse(changed(changed(STUDENT, "training.epochs", 0), "seed", -1))


def test_a_missing_key_is_named() -> None:
    value = deepcopy(STUDENT)
    del value["primary"]
    with pytest.raises(UserError, match=r"student\.primary: Field required$"):
        parse(value)


@pytest.mark.parametrize("value", [None, [], 3, "text", {}])
def test_what_is_no_configuration_at_all_is_refused_with_the_file(value: Any) -> None:
    with pytest.raises(UserError, match=f"^{ORIGIN}: "):
        from_json(value, ORIGIN)


@pytest.mark.parametrize("version", [0, 99])
def test_an_algorithm_version_that_is_not_known_is_refused(version: int) -> None:
    with pytest.raises(UserError, match=f"algorithm version {version}, this is version {ALGORITHM_VERSION}; read it"):
        parse(changed(TEACHER, "algorithm", version))


def test_an_older_algorithm_version_is_read_and_not_trained() -> None:
    older = parse(changed(TEACHER, "algorithm", 1))
    assert to_json(older) == TEACHER
    with pytest.raises(UserError, match=f"^{ORIGIN}: made by algorithm version 1, .*; finish it with the mmkd that"):
        check_version(older, ORIGIN)
    check_version(parse(changed(TEACHER, "algorithm", ALGORITHM_VERSION)), ORIGIN)


def test_a_configuration_cannot_be_changed() -> None:
    config = parse(TEACHER)
    with pytest.raises(ValidationError):
        config.seed = 4
