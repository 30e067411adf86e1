"""Rows of one seed share the initial student, the order of batches, augmentation and the dropout of every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmkd.config import Augmentation
from mmkd.distillation import method_names
from mmkd.training.random_stream import RandomStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmkd.rundir import TrialDir
    from tests.conftest import Lab

    Numbers = Callable[[TrialDir], dict[str, Any]]

CPU = torch.device("cpu")
DROPPED = {"embedding": 0.2, "attention": 0.2, "residual": 0.2, "relu": 0.2, "output": 0.2}
AUGMENTED = Augmentation(noise=0.1, scale=0.1, crop=0.2, rotation=0.3).model_dump()
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("kd", {"temperature": 4.0}),
    ("kd", {"pairing": "complete"}),
    ("kd", {"pairing": "multimodal"}),
    *(("crd", {"level": level}) for level in ("final", "penultimate", "post_attention", "attention_maps")),
    ("crd", {"level": "attention_maps", "settings": {"rows": 2, "estimator": "bank", "embedding": 4}}),
    ("crd", {"level": "post_attention", "pairing": "complete"}),
    ("edam", {"settings": {"size": "down"}}),
    ("edam", {"pairing": "complete"}),
    ("edam", {"pairing": "audio"}),
    ("attention_distance", {"settings": {"distance": "js"}}),
    ("msd", {}),
    *(
        ("msd", {"pairing": "multimodal", "settings": {"weighting": weighting}, "training": {"held_out": 0.2}})
        for weighting in ("uniform", "population", "instance", "learned")
    ),
]
"""Every method, at every level and in every pairing in which its student is that of the control."""


def test_every_method_is_among_the_rows() -> None:
    assert {method for method, _ in ROWS} == set(method_names()) - {"no_kd"}


def without_kd(numbers: dict[str, Any], names: Any) -> dict[str, Any]:
    """The numbers of a run, less what a method records beside the control's curves."""
    lines = [{name: value for name, value in line.items() if name in names} for line in numbers["lines"]]
    curves = {name: curve for name, curve in numbers["curves"].items() if name in names}
    return {**numbers, "curves": curves, "lines": lines}


@pytest.mark.parametrize("variant", [{"mask": "mult"}, {"self_attention": "updated"}], ids=str)
@pytest.mark.parametrize(("method", "row"), ROWS, ids=str)
def test_a_loss_that_counts_nothing_leaves_the_control_bit_for_bit(
    method: str, row: dict[str, Any], variant: dict[str, str], lab: Lab, numbers_of: Numbers
) -> None:
    shared = {"pairing": row.get("pairing", "others"), "network": {"dropout": DROPPED, **variant}}
    shared["training"] = {"augmentation": AUGMENTED, **row.get("training", {})}
    own = {key: value for key, value in row.items() if key not in shared}
    control = numbers_of(lab.run(lab.student("no_kd", **shared), number=0))
    found = numbers_of(lab.run(lab.student(method, alpha=1.0, beta=0.0, **own, **shared), number=1))
    assert any("train_distillation" in line for line in found["lines"])
    names = {"epoch", *control["curves"]}
    assert without_kd(found, names) == without_kd(control, names)


def test_a_loss_that_counts_moves_the_student(lab: Lab, numbers_of: Numbers) -> None:
    none, some = (lab.run(lab.student("kd", beta=beta), number=n) for n, beta in enumerate((0.0, 0.5)))
    assert numbers_of(none)["weights"] != numbers_of(some)["weights"]


def test_what_is_drawn_within_a_stream_does_not_move_what_is_drawn_outside() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    stream = RandomStream(7, CPU)
    found = [torch.rand(1)]
    for _ in range(3):
        with stream:
            torch.rand(5)
        found.append(torch.rand(1))
    assert torch.equal(torch.cat(found), expected)


def test_a_stream_goes_on_where_it_ended_also_when_it_is_entered_twice_or_an_error_left_it() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(1)
    stream = RandomStream(7, CPU)
    with stream:
        drawn = [torch.rand(1)]
        with stream:
            drawn.append(torch.rand(1))
        drawn.append(torch.rand(1))
    with pytest.raises(ZeroDivisionError), stream:
        raise ZeroDivisionError
    resumed = RandomStream(8, CPU)
    resumed.load_state_dict(stream.state_dict())
    with resumed:
        drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    torch.manual_seed(1)
    outside = torch.rand(1)
    torch.manual_seed(1)
    with resumed:
        torch.rand(1)
    assert torch.equal(torch.rand(1), outside)
