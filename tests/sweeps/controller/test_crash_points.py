"""kill -9 at every place between two writes that belong together, and the same command afterwards.

The controller, and a real trial, run in a forked process that dies at the named call without a last word: no `finally`,
no flush, no lock given back. What backends do is faked where no process is needed to see it.
"""

import errno
import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from controlled import rows_of, run
from fakes import FakeBackend
from optuna.storages.journal import JournalFileBackend
from survival import broken, reported
from tiny_study import STUDY

from mmkd.attempts import read_attempts, record_run
from mmkd.failures import Failure
from mmkd.files import read_json, write_json
from mmkd.lock import FileLock
from mmkd.result_file import read_result, write_result
from mmkd.rundir import Root, TrialDir
from slurm.backend import Handle, Job, Report, SubmissionDelayed
from sweeps.rows import Row

KILLED = 9
"""What a forked process ends with that came to its crash point."""


class Backend(FakeBackend):
    """A fake whose ids no other process gives: to a relaunch, earlier jobs died with the machine.

    Its jobs tell of their attempts, as real ones do.
    """

    def submit(self, job: Job) -> Handle:
        handle = super().submit(job)
        return replace(handle, id=f"{os.getpid()}.{handle.id}")

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        mine = {replace(h, id=h.id.split(".")[1]): h for h in handles if h.id.startswith(f"{os.getpid()}.")}
        gone = {h: Report(False, "node_fail", "gone") for h in handles if h.id and h not in mine.values()}
        return gone | {mine[h]: report for h, report in super().poll(mine).items()}

    def _end(self, job: Job) -> None:
        directory, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        record_run(directory, attempt, started=1.0)
        super()._end(job)
        if directory.result.exists():
            record_run(directory, attempt, end="complete", ended=2.0)


@dataclass(frozen=True)
class Point:
    """A call at which a process dies: the `nth` of `where` of which `when` is true, before or after it is made."""

    where: str
    after: bool = False
    when: Callable[..., bool] = lambda *_, **__: True
    nth: int = 1


def die() -> None:
    """As by kill -9."""
    os._exit(KILLED)


def arm(point: Point) -> None:
    """Have this process die there."""
    name, _, attribute = point.where.rpartition(".")
    try:
        owner: Any = import_module(name)
    except ModuleNotFoundError:
        module, _, holder = name.rpartition(".")
        owner = getattr(import_module(module), holder)
    original, calls = getattr(owner, attribute), count(1)

    def dies(*arguments: Any, **named: Any) -> Any:
        hit = point.when(*arguments, **named) and next(calls) == point.nth
        if hit and not point.after:
            die()
        value = original(*arguments, **named)
        if hit:
            die()
        return value

    setattr(owner, attribute, dies)


def forked(do: Callable[[], object]) -> int:
    """The process id of a copy of this one that does it, and ends with what it returns."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = int(do() or 0)  # type: ignore[call-overload]
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dies_at(point: Point, do: Callable[[], object]) -> None:
    """Do it in a process of its own, which comes to the point and dies there."""

    def armed() -> object:
        arm(point)
        return do()

    assert exit_code(forked(armed)) == KILLED, f"it never came to {point.where}"


def to(name: str) -> Callable[..., bool]:
    """Whether a write goes to a file of that name."""
    return lambda path, *_, **__: Path(path).name == name


def onto(name: str) -> Callable[..., bool]:
    """Whether a renaming is to that name."""
    return lambda source, target: Path(target).name == name


def the_end(directory: TrialDir, number: int, **facts: Any) -> bool:
    return "end" in facts


def a_job(directory: TrialDir, number: int, **facts: Any) -> bool:
    return "job" in facts and "end" not in facts


def a_claim(lock: FileLock) -> bool:
    return lock.path.name == "claim.lock"


CONTROLLER = {
    "lock file made | its holder named": Point("mmkd.lock.FileLock._write"),
    "lock taken | row.json": Point("sweeps.controller.row.write_record", when=to("row.json")),
    "row.json | the study in the journal": Point("sweeps.controller.row.Tuning"),
    "teacher claimed | its directory filled": Point("mmkd.lock.FileLock.acquire", after=True, when=a_claim),
    "trial sampled | its directory": Point("sweeps.controller.optuna_study.Tuning.sample", after=True),
    "its directory | its config.json": Point("sweeps.controller.tasks.write_json", when=to("config.json"), nth=2),
    "config.json | attempt announced": Point("sweeps.controller.jobs.record_submission"),
    "attempt announced | attempt named": Point("sweeps.controller.jobs.write_text", when=to("attempt")),
    "attempt named | job submitted": Point("test_crash_points.Backend.submit", nth=2),
    "job submitted | its id noted": Point("sweeps.controller.jobs.record_submission", when=a_job, nth=2),
    "id noted | job ended": Point("sweeps.controller.jobs.record_submission", after=True, when=a_job, nth=3),
    "result | its end noted": Point("sweeps.controller.jobs.record_submission", when=the_end, nth=2),
    "end noted | result reported": Point("sweeps.controller.jobs.record_submission", when=the_end, after=True, nth=4),
    "teacher's end noted | cleaned up": Point("sweeps.controller.teachers.clean_up"),
    "cleaned up | reported": Point("sweeps.controller.optuna_study.Tuning.report"),
    "reported | listed as finished": Point("sweeps.controller.finished_list.add_finished"),
    "listed as finished | next one sampled": Point("sweeps.controller.finished_list.add_finished", after=True, nth=2),
    "reported | next one sampled": Point("sweeps.controller.optuna_study.Tuning.report", after=True, nth=2),
    "all reported | winner.json": Point("sweeps.controller.winner.write_record", when=to("winner.json")),
    "winner.json | final runs": Point("sweeps.controller.winner.write_record", after=True, when=to("winner.json")),
    "final run ended | settled": Point("sweeps.controller.row.RowWork._settle_final"),
    "lock checked | heartbeat written": Point("mmkd.lock.FileLock._write", nth=8),
    "teacher cleaned up | claim given back": Point("mmkd.lock.FileLock.release", when=a_claim),
    "all done | locks given back": Point("mmkd.lock.FileLock.release", when=lambda lock: not a_claim(lock)),
}
"""The controller's: between the write on the left and the one on the right."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(f'data = "{tiny_data}"\n{STUDY}')
    return path


def planned(study: Path, folder: Path, *overrides: str) -> list[Row]:
    return list(rows_of(study, folder, *overrides).values())


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(planned(study, folder), Root(folder / "runs"), Backend())
    return folder / "runs"


@pytest.mark.parametrize("name", CONTROLLER)
def test_a_controller_that_dies_between_two_writes_is_replaced_and_nothing_is_lost_or_doubled(
    name: str, study: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.loop.HEARTBEAT_SECONDS", 0.0)
    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    dies_at(CONTROLLER[name], lambda: run(rows, root, Backend()))
    run(rows, root, Backend())
    assert broken(root.path, undisturbed) == []


@pytest.mark.parametrize("line", range(1, 15, 2))
def test_a_controller_that_dies_in_the_middle_of_a_line_of_the_journal_is_replaced(
    line: int, study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The study is made by one line, each sample by one, and each report by one or two."""
    rows, root, lines = planned(study, tmp_path), Root(tmp_path / "runs"), count(1)
    append = JournalFileBackend.append_logs

    def torn(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if next(lines) < line:
            return append(self, logs)
        path = Path(self._file_path)
        whole = path.read_bytes() if path.exists() else b""
        append(self, logs)
        os.truncate(path, (len(whole) + path.stat().st_size) // 2)
        die()

    def armed() -> None:
        JournalFileBackend.append_logs = torn  # type: ignore[method-assign]
        run(rows, root, Backend())

    assert exit_code(forked(armed)) == KILLED
    run(rows, root, Backend())
    assert broken(root.path, undisturbed) == []


REPLICATED = (
    "row.json | the study in the journal",
    "teacher claimed | its directory filled",
    "id noted | job ended",
    "reported | next one sampled",
    "winner.json | final runs",
    "final run ended | settled",
)


@pytest.mark.parametrize("name", REPLICATED)
def test_a_controller_that_dies_with_replicates_is_replaced_and_nothing_is_lost_or_doubled(
    name: str, study: Path, tmp_path: Path
) -> None:
    change = ("replicates=3", "splits.scheme=group-folds", "rows.*.trials=2", "rows.*.seeds=1")
    run(planned(study, tmp_path / "whole", *change), Root(tmp_path / "whole" / "runs"), Backend())
    rows, root = planned(study, tmp_path, *change), Root(tmp_path / "runs")
    dies_at(replace(CONTROLLER[name], nth=5), lambda: run(rows, root, Backend()))
    run(rows, root, Backend())
    assert broken(root.path, tmp_path / "whole" / "runs") == []


def test_a_row_that_changes_its_winner_and_dies_before_the_former_runs_are_marked_marks_them(
    study: Path, tmp_path: Path
) -> None:
    change = "defaults.space.learning_rate={low=1e-4, high=1e-2, log=true, default=1e-2}"
    root = Root(tmp_path / "runs")
    few, many = (planned(study, tmp_path, change, f"rows.*.trials={n}")[:1] for n in (1, 6))
    run(few, root, Backend())
    dies_at(
        Point("sweeps.controller.winner.write_text", when=to("superseded"), nth=2), lambda: run(many, root, Backend())
    )
    run(many, root, Backend())
    (row,) = many
    counted = set(read_json(row.directory.winner)["confirm"].values())
    assert {c.path.name for c in row.directory.final_runs() if not c.superseded.exists()} == counted
    assert len(row.directory.final_runs()) == 2 * len(counted)


def test_a_row_that_begins_again_and_dies_with_half_of_it_set_aside_loses_nothing(
    study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    run(rows, root, Backend(lambda job, attempt: Failure.ERROR if "/no_kd-" in job.command[3] else None))
    failed = len(list(rows[0].directory.path.glob("trials/*")))
    moved = Point(
        "sweeps.controller.failed_rows.os.replace", after=True, when=lambda source, _: Path(source).name == "trials"
    )
    dies_at(moved, lambda: run(rows, root, Backend()))
    run(rows, root, Backend())
    assert len(list(rows[0].directory.path.glob("failed-*/trials/*"))) == failed > 0
    assert len(list(rows[0].directory.path.glob("failed-*/journal.log"))) == 1
    assert broken(root.path, undisturbed) == []


def test_an_attempt_that_is_half_taken_back_is_announced_again(study: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The queue was full; the number is free again, and its record still there."""

    class Full(Backend):
        def submit(self, job: Job) -> str:
            raise SubmissionDelayed("the queue is full", certain=True)

    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    taken_back = Point("sweeps.controller.jobs.write_text", after=True, when=lambda path, text: text == "0\n")
    dies_at(taken_back, lambda: run(rows, root, Full()))
    run(rows, root, Backend())
    assert broken(root.path, undisturbed) == []


@pytest.mark.parametrize("damage", ["cut", "one bit", "removed"])
def test_a_told_trial_whose_result_is_damaged_runs_again_and_is_not_told_again(
    damage: str, study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    run(rows, root, Backend())
    directories = [rows[0].directory.trial(1), rows[1].directory.final_runs()[0], root.teachers()[0]]
    for directory in directories:
        content = bytearray(directory.result.read_bytes())
        content[len(content) // 3] ^= 4
        directory.result.unlink()
        if damage != "removed":
            directory.result.write_bytes(content if damage == "one bit" else content[: len(content) // 2])
    before = reported(root.path)
    run(rows, root, Backend())
    assert reported(root.path) == before
    assert [[a.end for a in read_attempts(directory)] for directory in directories] == [["complete", "complete"]] * 3
    left = [w for w in broken(root.path, undisturbed) if "of which one should be complete" not in w]
    assert left == []


def test_a_told_trial_that_ran_again_while_no_controller_saw_it_has_its_end_noted(
    study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    run(rows, root, Backend())
    directory = rows[0].directory.trial(1)
    noted = read_json(directory.controller_record(1))
    assert noted is not None
    unseen = {key: value for key, value in noted.items() if key not in ("end", "message", "ended", "epochs")}
    write_json(directory.controller_record(1), unseen)
    before, again = reported(root.path), Backend()
    run(rows, root, again)
    assert again.jobs == [], "nothing runs twice"
    assert reported(root.path) == before
    assert [attempt.end for attempt in read_attempts(directory)] == ["complete"]
    assert broken(root.path, undisturbed) == []


@pytest.mark.parametrize("lines", [0, 1, 3, 6])
def test_a_journal_that_lost_its_last_lines_is_told_again_from_the_directories(
    lines: int, study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rows, root = planned(study, tmp_path), Root(tmp_path / "runs")
    run(rows, root, Backend())
    for row in rows:
        kept = row.directory.journal.read_bytes().splitlines(keepends=True)[:lines]
        row.directory.journal.write_bytes(b"".join(kept))
    again = Backend()
    run(rows, root, again)
    assert again.jobs == [], "nothing runs twice"
    assert broken(root.path, undisturbed) == []


def test_a_journal_that_is_cut_asks_what_the_directories_hold_also_where_the_sampler_would_ask_something_else(
    study: Path, tmp_path: Path
) -> None:
    rows, root = planned(study, tmp_path, 'defaults.sampler="tpe"', "rows.*.trials=5"), Root(tmp_path / "runs")
    run(rows, root, Backend())
    before = {path: read_json(path) for path in root.path.glob("rows/*/trials/*/config.json")}
    for row in rows:
        kept = row.directory.journal.read_bytes().splitlines(keepends=True)[:4]
        row.directory.journal.write_bytes(b"".join(kept))
    again = Backend()
    run(rows, root, again)
    assert again.jobs == [], "nothing runs twice"
    assert {path: read_json(path) for path in root.path.glob("rows/*/trials/*/config.json")} == before
    assert [said for said in reported(root.path).values() if said != ["complete"]] == []


@pytest.mark.parametrize(("then", "jobs"), [(1, 1), (2, 2)], ids=["has taught", "teaches on"])
def test_a_teacher_whose_weights_are_damaged_is_trained_again_before_it_teaches(
    study: Path, tmp_path: Path, then: int, jobs: int
) -> None:
    class Weighty(Backend):
        """Leaves weights, and names them in the result."""

        def _end(self, job: Job) -> None:
            super()._end(job)
            directory = TrialDir(Path(job.command[3]))
            directory.weights.write_bytes(b"weights")
            result = read_result(directory.result)
            write_result(directory, replace(result, weights_sha256=hashlib.sha256(b"weights").hexdigest()))

    few, more = (planned(study, tmp_path, f"rows.*.trials={n}")[1:] for n in (1, then))
    root = Root(tmp_path / "runs")
    run(few, root, Weighty())
    (damaged,) = [t for t in root.teachers() if read_json(t.config)["seed"] == 0]
    damaged.weights.write_bytes(b"wEights")
    again = Weighty()
    run(more, root, again)
    assert again.jobs[0].command[3] == str(damaged.path)
    assert damaged.weights.read_bytes() == b"weights"
    assert [a.end for a in read_attempts(damaged)] == ["complete", "complete"]
    assert len(again.jobs) == jobs, "the teacher, and the new trial if there is one"


# --- a trial


TRIAL = {
    "lock taken | attempt's record": Point("mmkd.trial.record_run"),
    "metrics emptied | first epoch": Point("mmkd.training.trainer.cut_metrics", after=True),
    "epoch's line | its checkpoint": Point("mmkd.training.trainer.save_checkpoint", nth=2),
    "checkpoint written | renamed": Point("mmkd.files.os.replace", when=onto("checkpoint.pt"), nth=2),
    "checkpoint | next epoch's line": Point("mmkd.training.trainer.save_checkpoint", after=True, nth=2),
    "last epoch's line | weights": Point("mmkd.trial.save_weights"),
    "weights | result": Point("mmkd.trial.write_result"),
    "result written | renamed": Point("mmkd.files.os.replace", when=onto("result.h5")),
    "result | checkpoint removed": Point("mmkd.trial.write_result", after=True),
    "checkpoint removed | end told": Point("mmkd.trial.record_run", when=the_end),
    "end told | lock given back": Point("mmkd.lock.FileLock.release"),
}
"""A trial's."""


def attempt(directory: TrialDir, number: int) -> int:
    """What a job does, as an attempt that the controller has announced."""
    from mmkd.trial import main

    return main([str(directory.path), "--attempt", str(number)], received=[])


@pytest.mark.parametrize("name", TRIAL)
def test_a_trial_that_dies_between_two_writes_ends_with_the_same_numbers(name: str, lab: Any, numbers_of: Any) -> None:
    config = lab.student("crd", level="final")
    expected = numbers_of(lab.run(config, 1))
    directory = lab.place(config)
    directory.attempt.write_text("1\n")
    dies_at(TRIAL[name], partial(attempt, directory, 1))
    directory.attempt.write_text("2\n")
    assert exit_code(forked(partial(attempt, directory, 2))) == 0
    assert numbers_of(directory) == expected
    assert [path.name for path in directory.path.rglob(".tmp-*")] == []


def test_a_superseded_trial_that_lives_on_ends_at_its_next_epoch_and_its_successor_goes_on(
    lab: Any, numbers_of: Any
) -> None:
    """Its machine was taken for dead: it stands still between an epoch's line and its checkpoint, and then goes on."""
    config = lab.student("crd", level="final")
    expected = numbers_of(lab.run(config, 1))
    directory = lab.place(config)
    directory.attempt.write_text("1\n")

    def stands_still() -> int:
        import mmkd.training.trainer as trainer

        save, calls = trainer.save_checkpoint, count(1)

        def stops(*arguments: Any) -> None:
            if next(calls) == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
            save(*arguments)

        trainer.save_checkpoint = stops
        return attempt(directory, 1)

    first = forked(stands_still)
    assert os.WIFSTOPPED(os.waitpid(first, os.WUNTRACED)[1])
    directory.attempt.write_text("2\n")
    second = forked(partial(attempt, directory, 2))
    time.sleep(0.3)  # it finds the lock held
    os.kill(first, signal.SIGCONT)
    try:
        assert exit_code(first) == 75
        assert exit_code(second) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(second, signal.SIGKILL)
    assert numbers_of(directory) == expected
    assert [a.ran.end for a in read_attempts(directory)] == ["cancelled", "complete"]


def test_a_full_disk_is_not_the_trials_error(lab: Any, numbers_of: Any) -> None:
    config = lab.student("crd", level="final")
    expected = numbers_of(lab.run(config, 1))
    directory = lab.place(config)
    directory.attempt.write_text("1\n")

    def on_a_full_disk() -> int:
        import mmkd.training.trainer as trainer

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        trainer.append_metrics = full
        return attempt(directory, 1)

    assert exit_code(forked(on_a_full_disk)) == 1
    assert [a.ran.end for a in read_attempts(directory)] == ["storage"], "no node is to blame"
    assert exit_code(forked(partial(attempt, directory, 1))) == 0
    assert numbers_of(directory) == expected
