"""How an attempt ended, from what the job told, what the scheduler says, and what either says late."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run
from fakes import fake_result
from rich.console import Console

from mmkd.attempts import read_attempts, record_run, record_submission
from mmkd.failures import RULES, Failure
from mmkd.files import read_json, write_json, write_text
from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State, decide, next_resources, pause_left
from slurm.backend import Handle, Job, Report
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Interrupted, Stop
from sweeps.rows import Row

KILL = "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=1.0.\nsrun: error: n1: task 0: Out Of Memory\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    return rows_of(study_file, tmp_path)["no_kd"]


class Ending(FakeCluster):
    """Trial 0's first attempt leaves the record `ran` and `log`; `said`, then `state` are the scheduler's words."""

    def __init__(self, said: Report, ran: Mapping[str, Any] | None, log: str = "", state: str = "COMPLETED") -> None:
        super().__init__()
        self.said, self.ran, self.log, self.state = said, ran, log, state

    def _end(self, job: Job) -> None:
        directory, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        if not job.name.endswith(".t0.a1"):
            super()._end(job)
            record_run(directory, attempt, started=1.0, end="complete", ended=2.0)
            return
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text(self.log)
        if self.ran is not None:
            record_run(directory, attempt, **self.ran)

    def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
        reports = super().poll(handles)
        first = {h: self.said for h in handles if h.name.endswith(".t0.a1") and not reports[h].alive}
        return reports | first

    def usage(self, handles: Collection[Handle], *, at_once: bool = False) -> dict[Handle, Mapping[str, Any]]:
        return {h: {"state": self.state if h.name.endswith(".t0.a1") else "COMPLETED"} for h in handles}


def ends(row: Row) -> list[str | None]:
    return [attempt.end for attempt in read_attempts(row.directory.trial(0))]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is late is given up soon."""
    monkeypatch.setattr("sweeps.controller.jobs.VISIBLE_SECONDS", 0.1)


@pytest.mark.parametrize("ran", [None, {"started": 1.0}, {"started": 1.0, "end": "preempted"}])
def test_a_kill_for_memory_that_slurm_calls_a_failure_gets_more_memory(
    row: Row, root: Root, ran: dict[str, Any] | None
) -> None:
    """Polled memory limits send SIGTERM first, which a job takes for a preemption."""
    backend = Ending(Report(False, "error", "Slurm says FAILED (NonZeroExitCode)"), ran, KILL)
    run(row, root, backend)
    assert ends(row) == ["out_of_memory", "complete"]
    assert [job.memory for job in backend.jobs if ".t0." in job.name] == [1.0, 2.0]


def test_why_a_job_got_sigterm_accounting_knows(row: Row, root: Root) -> None:
    ran = {"started": 1.0, "end": "preempted", "message": "asked to end in epoch 2", "ended": 2.0}
    run(row, root, Ending(Report(True), ran, state="CANCELLED"))
    assert ends(row) == ["cancelled", "complete"]


@pytest.mark.parametrize("told", ["error", "timeout"])
def test_what_a_job_knows_better_than_accounting_stands(row: Row, root: Root, told: str) -> None:
    ran = {"started": 1.0, "end": told, "message": "so it was", "ended": 2.0}
    run(row, root, Ending(Report(True), ran, state="NODE_FAIL"))
    assert ends(row) == [told, "complete"]


def test_a_result_that_the_file_system_shows_late_is_waited_for(
    row: Row, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.controller.jobs.VISIBLE_SECONDS", 60.0)
    directory, turns = row.directory.trial(0), 0

    def shown_late() -> Stop | None:
        nonlocal turns
        turns += 1
        if turns == 20:
            assert read_json(directory.job_record(1))["end"] == "complete"
            assert "end" not in read_json(directory.controller_record(1))
            fake_result(directory)
        return None

    run(row, root, Ending(Report(False), {"started": 1.0, "end": "complete", "ended": 2.0}), stop=shown_late)
    assert ends(row) == ["complete"]


def test_a_result_that_never_appears_is_an_error(row: Row, root: Root) -> None:
    run(row, root, Ending(Report(False), {"started": 1.0, "end": "complete", "ended": 2.0}))
    assert ends(row) == ["error", "complete"]


@pytest.mark.parametrize(("ran", "end"), [({"started": 1.0}, "node_fail"), (None, "not_started")])
def test_a_job_that_began_and_was_killed_without_a_word_counts_as_a_node_that_failed(
    row: Row, root: Root, ran: Mapping[str, Any] | None, end: str
) -> None:
    run(row, root, Ending(Report(False, "error", "Slurm says FAILED (NonZeroExitCode)"), ran, state="FAILED"))
    assert ends(row) == [end, "complete"]


def test_an_end_that_no_controller_saw_is_noted_by_the_next_with_its_costs(row: Row, root: Root) -> None:
    backend = FakeCluster(delay=10_000)
    rounds = iter(range(1000))
    with pytest.raises(Interrupted):
        run(row, root, backend, 3, stop=lambda: Stop.WITHOUT_JOBS if next(rounds) > 3 else None)
    finished, cut = row.directory.trial(0), row.directory.trial(1)
    fake_result(finished)
    record_run(finished, 1, started=1.0, end="complete", ended=2.0)
    record_run(cut, 1, started=1.0, end="preempted", ended=2.0)
    run(row, root, FakeCluster(), 3)
    noted = [read_attempts(trial)[0].submitted for trial in (finished, cut)]
    assert [record.end for record in noted] == ["complete", "preempted"]
    assert [record.gpu_seconds for record in noted] == [3600.0, 3600.0]
    assert states(row) == ["1"] * 3


def test_another_backends_job_is_told_by_its_files(row: Row, root: Root) -> None:
    rounds = iter(range(1000))
    with pytest.raises(Interrupted):
        run(row, root, FakeCluster(delay=10_000), stop=lambda: Stop.WITHOUT_JOBS if next(rounds) > 3 else None)
    for trial in row.directory.trials():
        record_submission(trial, 1, backend="local", job="host:812:1718.22:")
    asked: list[Handle] = []

    class Asked(FakeCluster):
        def poll(self, handles: Collection[Handle]) -> dict[Handle, Report]:
            asked.extend(handles)
            return super().poll(handles)

    run(row, root, Asked())
    assert states(row) == ["1"] * 3
    assert not any(":" in handle.id for handle in asked)


def test_a_node_that_failed_before_the_job_could_say_where_it_is_is_avoided(row: Row, root: Root) -> None:
    backend = Ending(Report(False, "node_fail", "Slurm says NODE_FAIL", node="n3"), None, state="NODE_FAIL")
    run(row, root, backend)
    assert [job.avoid for job in backend.jobs if ".t0." in job.name] == [(), ("n3",)]


def test_where_a_job_ends_a_delayed_submission_is_tried_at_once(row: Row, root: Root) -> None:
    backend = FakeCluster(delay=3)
    work = RowWork(row, 2, Path(__file__))
    try:
        with Reporter(Console(quiet=True)) as reporter:
            controller = Controller([work], root, backend, 2, reporter, interval=0.0)
            task = next(iter(work.tasks(lambda row, seed: True)))
            controller.jobs.submit(task, work)
            controller.jobs._again = float("inf")
            assert controller.jobs.blocked
            while controller.jobs.running:
                list(controller.jobs.collect())
            assert not controller.jobs.blocked
    finally:
        work.close()


# --- how often


def attempts_that_ended(directory: TrialDir, *told: tuple[str, str | None]) -> None:
    """Attempts with the controller's class and the job's own word."""
    directory.attempts.mkdir(parents=True)
    write_json(directory.config, {})
    for number, (end, ran) in enumerate(told, start=1):
        record_submission(directory, number, submitted=10.0, end=end, epochs=0)
        if ran:
            record_run(directory, number, end=ran)
        write_text(directory.attempt, f"{number}\n")


@pytest.mark.parametrize("failure", [failure for failure in Failure if RULES[failure].limit])
def test_a_failure_that_gains_nothing_is_given_up_after_its_limit(failure: Failure, tmp_path: Path) -> None:
    below, at = TrialDir(tmp_path / "below"), TrialDir(tmp_path / "at")
    limit = RULES[failure].limit
    assert limit is not None
    attempts_that_ended(below, *[(failure, None)] * (limit - 1))
    attempts_that_ended(at, *[(failure, None)] * limit)
    assert decide(below, "") is (State.RETRY_DUE if limit > 1 else State.SAMPLED)
    assert decide(at, "") is State.FAILED
    assert decide(at, launch="another") is State.RETRY_DUE, "a relaunch tries anew"


def test_node_failures_in_a_row_are_retried_after_a_pause_that_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, Failure.NODE_FAIL, replace(RULES[Failure.NODE_FAIL], pause=5.0))
    monkeypatch.setattr("mmkd.trial_state.time.time", lambda: 100.0)
    pauses = []
    for number in range(5):
        directory = TrialDir(tmp_path / str(number))
        attempts_that_ended(directory, *[("node_fail", None)] * number)
        if number:
            record_submission(directory, number, ended=98.0)
        pauses.append(pause_left(directory, ""))
    assert pauses == [0.0, 0.0, 3.0, 8.0, 18.0]
    assert pause_left(directory, launch="another") == 0.0, "a relaunch retries at once"


def test_memory_is_raised_to_four_times_before_it_is_given_up(tmp_path: Path) -> None:
    directory = TrialDir(tmp_path / "trial")
    assert RULES[Failure.OUT_OF_MEMORY].limit == 3
    attempts_that_ended(directory, *[(Failure.OUT_OF_MEMORY, None)] * 2)
    assert next_resources(read_attempts(directory)) == (4.0, ())


def test_a_trial_whose_epochs_are_longer_than_the_time_limit_goes_on_as_long_as_it_saves_its_steps(
    tmp_path: Path,
) -> None:
    directory = TrialDir(tmp_path / "trial")
    attempts_that_ended(directory, *[("timeout", "timeout")] * 20)
    assert decide(directory, "") is State.RETRY_DUE
