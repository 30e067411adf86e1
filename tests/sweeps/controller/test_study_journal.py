"""Optuna knows each trial's metrics and curve once, and --journal keeps a copy of all rows for optuna-dashboard."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import optuna
import pytest
from controlled import rows_of, run
from fakes import FakeBackend
from launched import after
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.lock import FileLock
from mmkd.metrics_log import append_metrics
from mmkd.rundir import Root, TrialDir
from slurm.backend import Job
from sweeps.controller.journal import Journal
from sweeps.controller.optuna_study import Tuning
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Interrupted, Stop
from sweeps.controller.study_journal import StudyJournal, check_path
from sweeps.launch import main
from sweeps.rows import Row

CURVE = (0.9, 0.5, 0.7)


class Backend(FakeBackend):
    """Its jobs write a metrics file too."""

    def _end(self, job: Job) -> None:
        place = TrialDir(Path(job.command[3]))
        for epoch, loss in enumerate(() if place.metrics.exists() else CURVE, start=1):
            append_metrics(place, {"epoch": epoch, "valid_loss": loss, "time": float(epoch)})
        super()._end(job)


@pytest.fixture
def rows(study_file: Path, tmp_path: Path) -> list[Row]:
    return list(rows_of(study_file, tmp_path).values())


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


@contextmanager
def opened(rows: list[Row]) -> Iterator[list[RowWork]]:
    """The rows as a controller has them that does nothing."""
    works = [RowWork(row, 2, Path(__file__)) for row in rows]
    try:
        yield works
    finally:
        for work in works:
            work.close()


@contextmanager
def opened_with_failures(row: Row) -> Iterator[Tuning]:
    """A row's Optuna study as it is; `RowWork` would set it aside if all trials failed."""
    with FileLock(row.directory.lock) as lock:
        yield Tuning(row, lock, 2)


def update(path: Path, rows: list[Row]) -> str:
    """What one launch's update of the copy says."""
    with opened(rows) as works:
        return StudyJournal(path, [work.tuning for work in works]).update()


def studies(journal: Path) -> dict[str, list[FrozenTrial]]:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return {s.study_name: storage.get_all_trials(s._study_id) for s in storage.get_all_studies()}


def facts(trials: list[FrozenTrial]) -> list[Any]:
    return [(t.number, t.state, t.params, t.values, t.user_attrs, t.intermediate_values) for t in trials]


def reports(journal: Path) -> Counter[tuple[int, int, str]]:
    """How often each state, intermediate value and user attribute of each trial was written."""
    entries = map(json.loads, journal.read_text().splitlines())
    return Counter(
        (e["op_code"], e["trial_id"], str(e.get("step", "") or list(e.get("user_attr", {}))))
        for e in entries
        if e["op_code"] in (6, 7, 8)
    )


def test_a_finished_trial_has_its_metrics_as_attributes_and_its_epochs_as_intermediate_values(
    rows: list[Row], root: Root
) -> None:
    run(rows, root, Backend())
    for row in rows:
        [trials] = studies(row.directory.journal).values()
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
        for trial in trials:
            assert trial.intermediate_values == {1: 0.9, 2: 0.5, 3: 0.7}
            assert {"valid_accuracy", "valid_weighted_f1", "valid_macro_f1"} <= trial.user_attrs.keys()
            assert trial.user_attrs["valid_loss"] == trial.value


def test_a_failed_trial_keeps_the_epochs_that_it_had(rows: list[Row], root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("trials/1") else None

    run(rows[:1], root, Backend(fails))
    [trials] = studies(rows[0].directory.journal).values()
    assert trials[1].state is TrialState.FAIL
    assert trials[1].intermediate_values[3] == 0.7
    assert "valid_accuracy" not in trials[1].user_attrs


def test_a_controller_that_died_at_any_line_of_a_report_completes_it_and_repeats_nothing(
    rows: list[Row], root: Root
) -> None:
    run(rows[:1], root, Backend())
    journal = rows[0].directory.journal
    [whole] = studies(journal).values()
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:-5])
        run(rows[:1], root, Backend())
        [again] = studies(journal).values()
        assert [f[1:4] + f[5:] for f in facts(again)] == [f[1:4] + f[5:] for f in facts(whole)]
        assert set(reports(journal).values()) == {1}, kept


def test_the_copy_holds_every_row_as_one_study_with_its_label(rows: list[Row], root: Root, tmp_path: Path) -> None:
    run(rows, root, Backend())
    copy = tmp_path / "study.log"
    assert update(copy, rows) == ""
    copied = studies(copy)
    assert list(copied) == [row.directory.path.name for row in rows]
    for row in rows:
        [own] = studies(row.directory.journal).values()
        assert facts(copied[row.directory.path.name]) == facts(own)
        storage = JournalStorage(JournalFileBackend(str(copy)))
        study = optuna.load_study(study_name=row.directory.path.name, storage=storage)
        assert study.user_attrs == {"label": row.label}


def test_the_copy_follows_running_trials(rows: list[Row], root: Root, tmp_path: Path) -> None:
    copy = tmp_path / "study.log"
    with suppress(Interrupted):
        run(rows, root, Backend(delay=9), stop=after(2, Stop.WITHOUT_JOBS))
    assert update(copy, rows) == ""
    assert {trial.state for trials in studies(copy).values() for trial in trials} == {TrialState.RUNNING}
    run(rows, root, Backend())
    assert update(copy, rows) == ""
    copied = studies(copy)
    for row in rows:
        [own] = studies(row.directory.journal).values()
        assert facts(copied[row.directory.path.name]) == facts(own)
    size = copy.stat().st_size
    update(copy, rows)
    assert copy.stat().st_size == size, "nothing is new"
    assert set(reports(copy).values()) == {1}


def test_a_copy_that_a_kill_cut_at_any_line_is_completed_and_repeats_nothing(
    rows: list[Row], root: Root, tmp_path: Path
) -> None:
    copy = tmp_path / "study.log"
    with suppress(Interrupted):
        run(rows, root, Backend(delay=9), stop=after(2, Stop.WITHOUT_JOBS))
    update(copy, rows)
    run(rows, root, Backend())
    update(copy, rows)
    whole = {name: facts(trials) for name, trials in studies(copy).items()}
    lines = copy.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        copy.write_bytes(b"".join(lines[:kept]) + lines[kept][:-5])
        assert update(copy, rows) == ""
        assert {name: facts(trials) for name, trials in studies(copy).items()} == whole
        assert not reports(copy) or set(reports(copy).values()) == {1}, kept


def test_a_row_that_began_again_is_copied_anew(rows: list[Row], root: Root, tmp_path: Path) -> None:
    copy = tmp_path / "study.log"
    run(rows[:1], root, Backend(lambda job, attempt: Failure.ERROR))
    with opened_with_failures(rows[0]) as tuning:
        assert StudyJournal(copy, [tuning]).update() == ""
    [failed] = studies(copy).values()
    assert {trial.state for trial in failed} == {TrialState.FAIL}
    run(rows[:1], root, Backend())  # sets the failed trials aside
    assert update(copy, rows[:1]) == ""
    [own] = studies(rows[0].directory.journal).values()
    assert [facts(trials) for trials in studies(copy).values()] == [facts(own)]


def test_a_failed_trial_that_is_retried_is_copied_under_its_new_number(
    rows: list[Row], root: Root, tmp_path: Path
) -> None:
    copy = tmp_path / "study.log"

    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("trials/1") else None

    run(rows[:1], root, Backend(fails))
    with opened(rows[:1]) as works:
        assert works[0].retry_failed() == 1
        assert StudyJournal(copy, [works[0].tuning]).update() == ""
    assert [len(trials) for trials in studies(copy).values()] == [3], "it waits to be sampled"
    run(rows[:1], root, Backend())
    assert update(copy, rows[:1]) == ""
    [own], [copied] = studies(rows[0].directory.journal).values(), studies(copy).values()
    assert facts(copied) == facts(own)
    assert copied[3].params == copied[1].params


def test_two_studies_may_keep_one_copy(rows: list[Row], root: Root, tmp_path: Path) -> None:
    run(rows, root, Backend())
    copy = tmp_path / "study.log"
    for some in (rows[:1], rows[1:], rows):
        assert update(copy, some) == ""
    assert list(studies(copy)) == [row.directory.path.name for row in rows]


def test_a_copy_that_cannot_be_written_is_reported_once_and_tried_again(
    rows: list[Row], root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(rows, root, Backend())
    copy = tmp_path / "study.log"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(rows) as works:
        journal = StudyJournal(copy, [work.tuning for work in works])
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append_logs", full)
            assert "No space left on device" in journal.update()
            assert journal.update() == ""
        assert journal.update() == ""
    assert len(studies(copy)) == 2


def test_a_lock_that_a_killed_process_left_delays_the_copy_and_not_the_study(
    rows: list[Row], root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(rows[:1], root, Backend())
    copy, lock = tmp_path / "study.log", tmp_path / "study.log.lock"
    lock.symlink_to(copy)
    with opened(rows[:1]) as works:
        journal = StudyJournal(copy, [work.tuning for work in works])
        began = time.monotonic()
        assert f"if none does, remove {lock}" in journal.update()
        assert time.monotonic() - began < 10
        monkeypatch.setattr("sweeps.controller.study_journal.ABANDONED_SECONDS", 0.0)
        assert journal.update() == ""
    assert len(studies(copy)) == 1
    assert not lock.is_symlink()


def test_a_study_that_somebody_deleted_from_the_copy_is_copied_again(
    rows: list[Row], root: Root, tmp_path: Path
) -> None:
    run(rows, root, Backend())
    copy = tmp_path / "study.log"
    with opened(rows) as works:
        journal = StudyJournal(copy, [work.tuning for work in works])
        journal.update()
        name = rows[0].directory.path.name
        optuna.delete_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(copy))))
        assert journal.update() == ""
    assert len(studies(copy)[name]) == 3


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("notes.txt", "exists and is not an Optuna journal; name another file"),
        ("nowhere/study.log", "no such directory"),
        ("runs/rows/crd/journal.log", "is where rows keep their own journals"),
        ("runs", "is a directory; name a file in it"),
    ],
)
def test_a_path_that_cannot_hold_the_copy_is_refused_and_left_as_it_is(
    file: str, complaint: str, root: Root, tmp_path: Path
) -> None:
    (root.path / "rows/crd").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("do not lose this")
    with pytest.raises(UserError, match=complaint):
        check_path(tmp_path / file, root)
    assert (tmp_path / "notes.txt").read_text() == "do not lose this"


@contextmanager
def dashboard(journal: Path) -> Iterator[Callable[[str], Any]]:
    """A running optuna-dashboard; a function from a path of its API to the answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "optuna-dashboard", journal, "--port", str(port), "--server", "wsgiref"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def answer(path: str) -> Any:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=60) as reply:
                    return json.load(reply)
            except URLError as error:
                if server.poll() is not None or not isinstance(error.reason, ConnectionRefusedError):
                    raise
                time.sleep(0.1)  # it has not opened its port yet

    try:
        yield answer
    finally:
        server.kill()
        server.wait()


def test_optuna_dashboard_shows_a_rows_journal_and_the_copy_of_all_rows(
    study_file: Path, root: Root, tmp_path: Path
) -> None:
    pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard")
    copy = tmp_path / "study.log"
    command = ["--study", study_file, "--root", root.path, "--cluster", "debug", "--device", "cpu", "--journal", copy]
    assert main([str(word) for word in (*command, "--trials", "2", "--seeds", "1", "--epochs", "2")]) == 0
    rows = {row.path.name: row for row in root.rows()}
    for journal, names in ((next(iter(rows.values())).journal, list(rows)[:1]), (copy, sorted(rows))):
        with dashboard(journal) as answer:
            listed = answer("studies")["study_summaries"]
            assert sorted(study["study_name"] for study in listed) == names
            for study in listed:
                trials = answer(f"studies/{study['study_id']}")["trials"]
                assert [trial["state"] for trial in trials] == ["Complete"] * 2
                for trial in trials:
                    assert [value["step"] for value in trial["intermediate_values"]] == [1, 2]
                    keys = {attribute["key"] for attribute in trial["user_attrs"]}
                    assert {"valid_accuracy", "valid_weighted_f1", "valid_macro_f1"} <= keys
