"""The controller on a backend that trains nothing: every trial reported once, whatever its jobs do."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from controlled import rows_of, run, states
from fakes import FakeBackend, fake_result
from rich.console import Console

from mmkd.attempts import read_attempts, record_submission
from mmkd.failures import Failure
from mmkd.files import read_json, write_json
from mmkd.lock import LockHeld
from mmkd.result_file import Status, read_result
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, trial_state
from slurm.backend import Job
from sweeps.actions.estimate import left_of
from sweeps.controller.loop import LONGEST_ROUND, Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Interrupted
from sweeps.launch import failures_of
from sweeps.rows import Row

Sweep = Callable[..., list[RowWork]]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


@pytest.fixture
def rows(study_file: Path, tmp_path: Path) -> list[Row]:
    return list(rows_of(study_file, tmp_path).values())


def test_a_study_runs_to_its_end_and_a_relaunch_submits_nothing(rows: list[Row], root: Root) -> None:
    backend = FakeBackend()
    works = run(rows, root, backend)
    assert [work.remaining for work in works] == [0, 0]
    # 3 teachers (tuning's and one a seed), and for each row 3 trials and 2 final runs.
    assert len(backend.jobs) == 3 + 2 * (3 + 2)
    assert Counter(states(rows[1])) == {"1": 3}, "each trial complete, each reported once"
    again = FakeBackend()
    run(rows, root, again)
    assert again.jobs == []


@pytest.mark.parametrize(("seconds", "most"), [(60.0, 3), (-1.0, 1)])
def test_filling_slots_that_takes_long_lets_jobs_end_in_between(
    rows: list[Row], root: Root, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    monkeypatch.setattr("sweeps.controller.loop.FILLING_SECONDS", seconds)
    backend = FakeBackend()
    (work,) = run(rows[:1], root, backend, parallel=4)
    assert (backend.most, work.remaining) == (most, 0)


def test_rounds_are_rarer_where_many_jobs_run(rows: list[Row], root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("sweeps.controller.loop.LOOKS_A_SECOND", 10.0)
    monkeypatch.setattr("sweeps.controller.loop.time.sleep", pauses.append)
    run(rows[:1], root, FakeBackend(delay=1), parallel=3)
    assert max(pauses) == pytest.approx(0.3), "three jobs, each looked at ten times a second in sum"


def test_the_winner_is_retrained_on_each_seed(rows: list[Row], root: Root) -> None:
    run(rows, root, FakeBackend())
    winner = read_json(rows[0].directory.winner)
    assert winner["trial"] == 0, "1e-3, the default, has the lowest loss of the fake trials"
    for seed, name in winner["confirm"].items():
        result = read_result(rows[0].directory.path / "confirm" / name / "result.h5")
        assert (result.config["seed"], result.config["evaluate_test"]) == (int(seed), True)
        assert result.config["training"]["learning_rate"] == winner["params"]["learning_rate"]


def test_no_more_than_parallel_jobs_run_and_no_slot_idles(rows: list[Row], root: Root) -> None:
    backend = FakeBackend(delay=3)
    run(rows, root, backend, parallel=3)
    assert backend.most == 3


def test_a_teacher_is_trained_before_any_trial_that_needs_it(rows: list[Row], root: Root) -> None:
    backend = FakeBackend(delay=4)
    run(rows[1:], root, backend, parallel=4)
    assert "/teachers/" in backend.jobs[0].command[3]
    assert "/trials/" in backend.jobs[1].command[3] or "/teachers/" in backend.jobs[1].command[3]
    first_trial = next(n for n, job in enumerate(backend.jobs) if "/trials/" in job.command[3])
    assert all("/teachers/" in job.command[3] for job in backend.jobs[:first_trial])


def test_raising_trials_and_seeds_extends_the_row(study_file: Path, tmp_path: Path, root: Root) -> None:
    run(list(rows_of(study_file, tmp_path).values()), root, FakeBackend())
    more = rows_of(study_file, tmp_path, "defaults.trials=5", "defaults.seeds=3")
    backend = FakeBackend()
    run(list(more.values()), root, backend)
    names = [job.command[3].split("/")[-2] for job in backend.jobs]
    assert Counter(names) == {"trials": 4, "confirm": 2, "teachers": 1}


def test_final_runs_of_a_former_winner_are_kept_and_marked(study_file: Path, tmp_path: Path, root: Root) -> None:
    """The default's learning rate is far off here, so that a later trial wins."""
    change = "defaults.space.learning_rate={low=1e-4, high=1e-2, log=true, default=1e-2}"
    few, many = (rows_of(study_file, tmp_path, change, f"rows.*.trials={n}")["no_kd"] for n in (1, 6))
    run([few], root, FakeBackend())
    run([many], root, FakeBackend())
    confirms = many.directory.final_runs()
    counted = set(read_json(many.directory.winner)["confirm"].values())
    assert len(confirms) == 4
    assert {c.path.name for c in confirms if not c.superseded.exists()} == counted
    assert all(c.result.exists() for c in confirms)


@pytest.mark.parametrize("failure", [Failure.PREEMPTED, Failure.TIMEOUT, Failure.NODE_FAIL, Failure.CANCELLED])
def test_a_trial_that_was_cut_off_goes_on_in_a_new_attempt(rows: list[Row], root: Root, failure: Failure) -> None:
    works = run(rows[:1], root, FakeBackend(lambda job, attempt: failure if attempt <= 3 else None))
    assert works[0].failed == ""
    attempts = read_attempts(rows[0].directory.trial(0))
    assert [a.end for a in attempts] == [failure, failure, failure, "complete"]
    assert states(rows[0]) == ["1"] * 3


def test_an_error_is_tried_twice_told_as_failed_and_the_others_go_on(rows: list[Row], root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("trials/1") else None

    works = run(rows[:1], root, FakeBackend(fails))
    assert works[0].failed == ""
    (said,) = failures_of(works, ended=True)
    assert said.startswith("row no_kd: 1 trial failed (no retries left; --retry failed")
    assert failures_of(works, ended=False) == []
    assert left_of(rows[0]).tuning == 0
    assert left_of(rows[0], retry_failed=True).tuning == 1
    assert Counter(states(rows[0])) == {"1": 2, "3": 1}
    assert len(read_attempts(rows[0].directory.trial(1))) == 2
    assert trial_state(rows[0].directory.trial(1)) is State.FAILED


def test_a_seed_that_failed_for_good_is_named(rows: list[Row], root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if "/confirm/2-" in job.command[3] else None

    works = run(rows[:1], root, FakeBackend(fails))
    (said,) = failures_of(works, ended=True)
    assert said == "row no_kd: seed 2 failed (no retries left; the same command retries them)"


def test_an_error_in_between_does_not_count_with_other_failures(rows: list[Row], root: Root) -> None:
    ends = [Failure.ERROR, Failure.PREEMPTED, Failure.ERROR, None]
    works = run(rows[:1], root, FakeBackend(lambda job, attempt: ends[min(attempt, 4) - 1]))
    assert works[0].failed == ""


def test_a_row_whose_trials_all_fail_stops_and_the_other_row_does_not(rows: list[Row], root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if "/crd-" in job.command[3] else None

    works = run(rows, root, FakeBackend(fails))
    assert works[0].failed == ""
    assert "3 trials failed (no retries left)" in works[1].failed
    assert read_json(rows[0].directory.winner) is not None
    assert read_json(rows[1].directory.winner) is None


def test_a_row_without_its_teacher_fails_and_says_why(rows: list[Row], root: Root) -> None:
    works = run(rows, root, FakeBackend(lambda job, n: Failure.ERROR if "/teachers/" in job.command[3] else None))
    assert works[0].failed == ""
    assert works[1].failed.startswith("its teacher failed (no retries left): error in 2 attempts")


def test_a_diverged_trial_is_a_result_told_as_failed(rows: list[Row], root: Root) -> None:
    def diverges(job: Job, attempt: int) -> Failure | None:
        if job.command[3].endswith("trials/1"):
            fake_result(TrialDir(Path(job.command[3])), Status.DIVERGED)
            return Failure.CANCELLED
        return None

    run(rows[:1], root, FakeBackend(diverges))
    assert Counter(states(rows[0])) == {"1": 2, "3": 1}
    assert len(read_attempts(rows[0].directory.trial(1))) == 1


def test_a_second_controller_on_a_row_is_refused_and_told_who_holds_it(rows: list[Row], root: Root) -> None:
    holder = RowWork(rows[0], 1, Path(__file__))
    with pytest.raises(LockHeld, match=r"process \d+ on"):
        RowWork(rows[0], 1, Path(__file__))
    holder.close()
    RowWork(rows[0], 1, Path(__file__)).close()


def test_two_controllers_train_a_teacher_once(study_file: Path, tmp_path: Path, root: Root) -> None:
    """The first holds the claim while the second waits for its result."""
    row = rows_of(study_file, tmp_path)["crd"]
    first = FakeBackend()
    teachers: list[str] = []

    def while_claimed(job: Job, attempt: int) -> Failure | None:
        if "/teachers/" in job.command[3] and not teachers:
            teachers.append(job.command[3])
            other = rows_of(study_file, tmp_path, "rows.crd.space.beta=0.5")["crd"]
            beside = FakeBackend()
            deadline = time.monotonic() + 0.3
            with pytest.raises(Interrupted):
                run([other], root, beside, stop=lambda: time.monotonic() > deadline)
            assert not any(job.command[3] == teachers[0] for job in beside.jobs)
        return None

    first.fails = while_claimed
    run([row], root, first)
    assert teachers


def test_stopping_leaves_everything_to_go_on(rows: list[Row], root: Root) -> None:
    rounds = iter(range(100))
    with pytest.raises(Interrupted):
        run(rows, root, FakeBackend(), stop=lambda: next(rounds) > 4)
    works = run(rows, root, FakeBackend())
    assert [work.remaining for work in works] == [0, 0]
    assert all(set(states(row)) == {"1"} for row in rows)


def test_an_unreadable_result_is_set_aside_and_the_trial_runs_again(rows: list[Row], root: Root) -> None:
    def truncates(job: Job, attempt: int) -> Failure | None:
        directory = TrialDir(Path(job.command[3]))
        if job.command[3].endswith("trials/1") and attempt == 1:
            directory.result.write_bytes(b"\x89HDF\r\n\x1a\n cut")
            return Failure.CANCELLED
        return None

    run(rows[:1], root, FakeBackend(truncates))
    trial = rows[0].directory.trial(1)
    assert read_result(trial.result).status is Status.COMPLETE
    assert (trial.path / "result.h5.unreadable").exists()
    assert states(rows[0]) == ["1"] * 3


def test_a_job_whose_id_was_never_noted_is_superseded(rows: list[Row], root: Root) -> None:
    """The controller died between submitting and noting: nobody answers for attempt 1, so attempt 2 runs."""
    rounds = iter(range(100))
    with pytest.raises(Interrupted):
        run(rows[:1], root, FakeBackend(delay=50), stop=lambda: next(rounds) > 2)
    trial = rows[0].directory.trial(0)
    write_json(trial.controller_record(1), {"attempt": 1, "backend": "fake"})
    trial.job_record(1).unlink(missing_ok=True)
    run(rows[:1], root, FakeBackend())
    assert [a.number for a in read_attempts(trial)] == [1, 2]
    assert trial.attempt.read_text() == "2\n"


def test_an_announced_attempt_that_was_never_begun_is_begun(rows: list[Row], root: Root) -> None:
    """The controller died between the attempt's record and the file that names the attempt."""
    rounds = iter(range(100))
    with pytest.raises(Interrupted):
        run(rows[:1], root, FakeBackend(lambda job, n: Failure.PREEMPTED), stop=lambda: next(rounds) > 2)
    trial = rows[0].directory.trial(0)
    number = int(trial.attempt.read_text())
    record_submission(trial, number, end="preempted")
    record_submission(trial, number + 1, attempt=number + 1)
    run(rows[:1], root, FakeBackend())
    assert trial.result.exists()
    assert read_attempts(trial)[-1].number == number + 1


def test_a_row_in_which_nothing_completed_begins_again_and_loses_nothing(rows: list[Row], root: Root) -> None:
    works = run(rows[:1], root, FakeBackend(lambda job, attempt: Failure.ERROR))
    assert works[0].failed
    works = run(rows[:1], root, FakeBackend())
    assert works[0].failed == ""
    assert states(rows[0]) == ["1"] * 3
    aside = rows[0].directory.path / "failed-1"
    assert (aside / "journal.log").exists()
    assert len(list(aside.glob("trials/*/attempts/*.json"))) > 0


def test_a_relaunch_tries_a_failed_seed_and_a_failed_teacher_again(rows: list[Row], root: Root) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if "/confirm/2-" in job.command[3] or "/teachers/" in job.command[3] else None

    works = run(rows, root, FakeBackend(fails))
    assert works[0].failed == ""
    assert works[1].failed.startswith("its teacher failed")
    assert not rows[0].directory.final_runs()[1].result.exists()
    works = run(rows, root, FakeBackend())
    assert [work.failed for work in works] == ["", ""]
    assert rows[0].directory.final_runs()[1].result.exists()


def test_the_backend_decides_how_often_the_controller_looks(
    rows: list[Row], root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    backend = FakeBackend(delay=2)
    backend.round_seconds = 0.125
    work = RowWork(rows[0], 1, Path(__file__))
    with Reporter(Console(quiet=True)) as reporter:
        Controller([work], root, backend, 1, reporter).run()
    work.close()
    assert set(slept) == {0.125}


def test_the_controller_looks_less_often_where_ends_are_rare(
    rows: list[Row], root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    backend, work = FakeBackend(delay=800), RowWork(rows[0], 1, Path(__file__))
    with Reporter(Console(quiet=True)) as reporter:
        Controller([work], root, backend, 1, reporter).run()
    work.close()
    assert slept[0] == backend.round_seconds
    assert max(slept) == LONGEST_ROUND
    first_end = slept.index(backend.round_seconds, slept.index(LONGEST_ROUND))
    assert slept[first_end - 1] == LONGEST_ROUND, "an end makes it look often again"
