"""Studies that share rows: each works on what is free, follows the rest, and takes over from the dead."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from controlled import rows_of, states
from fakes import FakeBackend
from rich.console import Console

from mmkd.lock import FileLock, LockHeld
from mmkd.rundir import Root
from sweeps.controller.followed_rows import FollowedRows
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.rows import Row

STUDIES = 12


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.controller.followed_rows.LOOK_SECONDS", 0.02)


@pytest.fixture
def rows(study_file: Path, tmp_path: Path) -> list[Row]:
    """A control and a row for each study."""
    text = study_file.read_text().replace('[[rows]]\nname = "crd"', '[[others]]\nname = "crd"')
    control = text.partition("[[others]]")[0]
    for number in range(STUDIES):
        control += f'\n[[rows]]\nname = "own{number}"\nlabel = "{number}"\nmethod = "no_kd"\npairing = "video"\n'
        control += f"[rows.training]\nepochs = {number + 2}\n"
    study_file.write_text(control)
    return list(rows_of(study_file, tmp_path).values())


def launch(rows: list[Row], root: Root, study: str, delay: int = 3) -> tuple[list[RowWork], str]:
    """What a launch of a study does, without its command line; its rows and what was said."""
    followed = FollowedRows(rows, 2, Path(__file__), study)
    works: list[RowWork] = []
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    followed.joined = lambda work: works.append(work) or ""  # type: ignore[func-returns-value]
    try:
        works.extend(followed.take(rows))
        with Reporter(console) as reporter:
            backend = FakeBackend(delay=delay)
            Controller(works, root, backend, 2, reporter, interval=0.002, followed=followed).run()
    finally:
        for work in works:
            work.close()
    return works, console.export_text()


def test_a_held_row_is_followed_while_the_study_works_on_its_own(rows: list[Row], tmp_path: Path) -> None:
    holder = RowWork(rows[0], 1, Path(__file__), "another")
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(launch(rows[:2], Root(tmp_path / "runs"), "mine")[1]))
    thread.start()
    try:
        for _ in range(2000):
            if len(states(rows[1]) if rows[1].directory.journal.exists() else []) == 3:
                break
            time.sleep(0.01)
        assert states(rows[1]) == ["1"] * 3, "its own row does not wait"
        assert thread.is_alive()
    finally:
        holder.close()  # the other controller ends without a result
        thread.join(60)
    assert states(rows[0]) == ["1"] * 3
    assert "row no_kd: taken over" in said[0]


def test_a_finished_row_needs_no_lock(rows: list[Row], tmp_path: Path) -> None:
    launch(rows[:1], Root(tmp_path / "runs"), "first")
    launch(rows[:1], Root(tmp_path / "runs"), "first")  # notes that all is listed
    with FileLock(rows[0].directory.lock, purpose="another"):
        works, _ = launch(rows[:2], Root(tmp_path / "runs"), "mine")
    assert [work.is_done for work in works] == [True, False]
    rows[2].directory.path.mkdir()
    with FileLock(rows[2].directory.lock, purpose="another"), pytest.raises(LockHeld):
        RowWork(rows[2], 1, Path(__file__))


def test_a_controller_gives_a_row_back_as_soon_as_nothing_is_left_to_do(rows: list[Row], tmp_path: Path) -> None:
    root, seen = Root(tmp_path / "runs"), []
    works = [RowWork(row, 2, Path(__file__)) for row in rows[:2]]
    works[1].row.directory.path.mkdir(exist_ok=True)

    def stop() -> None:
        seen.append((works[0].is_locked, works[1].remaining))

    with Reporter(Console(quiet=True)) as reporter:
        Controller(works, root, FakeBackend(delay=1), 1, reporter, stop, interval=0.0).run()
    assert any(not locked and remaining for locked, remaining in seen)


def test_twelve_studies_at_once_with_killed_controllers_tune_the_control_once(rows: list[Row], tmp_path: Path) -> None:
    root, chance = Root(tmp_path / "runs"), random.Random(0)
    context = multiprocessing.get_context("fork")

    def start(number: int) -> multiprocessing.Process:
        process = context.Process(target=launch, args=([rows[0], rows[1 + number]], root, f"study{number}", 100))
        process.start()
        return process  # type: ignore[return-value]

    running = {number: start(number) for number in range(STUDIES)}
    killed = 0
    deadline = time.monotonic() + 120
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        victim = chance.choice(list(running))
        if killed < STUDIES and running[victim].is_alive():
            os.kill(running[victim].pid or 0, signal.SIGKILL)
            running[victim].join()
            killed += 1
            running[victim] = start(victim)
        for number in [number for number, process in running.items() if not process.is_alive()]:
            assert running.pop(number).exitcode == 0
    for process in running.values():
        process.kill()
    assert not running, "all end"
    assert killed >= STUDIES // 2
    for row in rows:
        assert states(row) == ["1"] * 3, "each trial is reported once"
        assert not row.directory.lock.exists()
