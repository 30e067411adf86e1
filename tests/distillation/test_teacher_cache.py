"""A teacher's outputs on train, kept beside it: the numbers of whoever finds them are those of whoever computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from mmkd.checksum import checksum_line
from mmkd.config import identity
from mmkd.distillation import teacher_cache as kept_outputs
from mmkd.distillation.frozen_teacher import FrozenTeacher
from mmkd.distillation.teacher_cache import OutputStore
from mmkd.models.network import Outputs

if TYPE_CHECKING:
    from tests.conftest import Lab

CPU = torch.device("cpu")
X = {"video": torch.arange(24.0).view(3, 4, 2), "audio": torch.ones(3, 2, 1)}


def outputs(value: float = 1.0) -> Outputs:
    return Outputs(torch.full((3, 2), value), torch.full((3, 5), -value), {}, {})


class Computing:
    """Computes `value`, and counts how often."""

    def __init__(self, value: float = 1.0) -> None:
        self.value, self.times = value, 0

    def __call__(self) -> Outputs:
        self.times += 1
        return outputs(self.value)


def fetch(store: OutputStore, computing: Computing, x: dict[str, Tensor] = X, view: tuple[str, ...] = ()) -> Tensor:
    found = store.fetch(x, view or tuple(x), CPU, computing)
    assert torch.equal(found.penultimate, -found.logits[:, :1].expand(3, 5))
    return found.logits


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(tmp_path, "weights", "data")


def the_file(store: OutputStore) -> Path:
    [path] = store.directory.iterdir()
    return path


def test_what_was_kept_is_read_and_not_computed(store: OutputStore) -> None:
    first, second = Computing(0.1), Computing(0.2)
    assert torch.equal(fetch(store, first), fetch(store, second))
    assert (first.times, second.times) == (1, 0)


@pytest.mark.parametrize(
    "change", ["weights", "data", "view", "order of samples", "type", "threads", "torch", "code", "processor"]
)
def test_whatever_may_change_a_bit_has_a_file_of_its_own(
    change: str, store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(store, Computing())
    x, view = X, tuple(X)
    if change in ("weights", "data"):
        store = OutputStore(store.directory, *(["other", "data"] if change == "weights" else ["weights", "other"]))
    elif change == "view":
        view = ("audio",)
    elif change == "order of samples":
        x = {m: value.flip(0) for m, value in X.items()}
    elif change == "type":
        x = {m: value.double() for m, value in X.items()}
    elif change == "threads":
        torch.set_num_threads(2)
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "0.0")
    elif change == "code":
        monkeypatch.setattr(kept_outputs, "source_digest", lambda: "another")
    else:
        monkeypatch.setattr(kept_outputs, "processor", lambda device: "another")
    computing = Computing(0.3)
    assert (fetch(store, computing, x, view) == 0.3).all()
    assert computing.times == 1
    assert len(list(store.directory.iterdir())) == 2


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def no_tensors(content: bytes) -> bytes:
    return b"nothing" + checksum_line(b"nothing")


@pytest.mark.parametrize("damage", [cut, flip, no_tensors, lambda content: b""])
def test_a_damaged_file_is_said_so_computed_anew_and_replaced(
    damage: Any, store: OutputStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(store, Computing())
    path = the_file(store)
    path.write_bytes(damage(path.read_bytes()))
    again = Computing(0.4)
    assert (fetch(store, again) == 0.4).all()
    assert again.times == 1
    assert f"warning: {path}: computed again" in capsys.readouterr().err
    unread = Computing(0.5)
    assert (fetch(store, unread) == 0.4).all()
    assert unread.times == 0


def test_a_file_under_another_ones_name_is_not_believed(store: OutputStore) -> None:
    fetch(store, Computing())
    path = the_file(store)
    other = OutputStore(store.directory, "other", "data")
    fetch(other, Computing(0.5))
    [new] = set(store.directory.iterdir()) - {path}
    new.write_bytes(path.read_bytes())
    assert (fetch(other, Computing(0.6)) == 0.6).all()


def test_where_nothing_can_be_written_the_outputs_are_computed_with_a_warning(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(kept_outputs, "write_atomically", full)
    assert (fetch(store, Computing(0.7)) == 0.7).all()
    assert "warning: the teacher's outputs are not kept: [Errno 28]" in capsys.readouterr().err
    assert not list(store.directory.iterdir())


def test_the_second_trial_reads_what_the_first_one_kept_and_both_end_with_the_numbers_of_one_that_keeps_nothing(
    lab: Lab, numbers_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    run_in_parts = FrozenTeacher._run_in_parts

    def counted(self: FrozenTeacher, *arguments: Any) -> Outputs:
        runs.append(len(runs))
        return run_in_parts(self, *arguments)

    monkeypatch.setattr(FrozenTeacher, "_run_in_parts", counted)
    config = lab.student("kd")
    assert config.teacher is not None
    folder = lab.root.teacher(identity(config.teacher)).path
    first = numbers_of(lab.run(config, number=0))
    assert len(runs) == len(list(folder.glob("outputs-*.pt"))) == 1
    assert numbers_of(lab.run(config, number=1)) == first
    assert len(runs) == 1
    monkeypatch.setattr(OutputStore, "fetch", lambda self, x, view, device, compute: compute())
    assert numbers_of(lab.run(config, number=2)) == first
    assert len(runs) == 2
