"""What only a cluster does to a controller: full queues, lost ids, budgets, memory, accounts (tests/slurm has more)."""

import time
from collections import Counter
from pathlib import Path

import pytest
from controlled import rows_of, states
from fake_cluster import FakeCluster, run
from fakes import FakeBackend
from rich.console import Console

from mmkd.attempts import current_attempt, read_attempts, record_run
from mmkd.errors import UserError
from mmkd.failures import Failure
from mmkd.files import read_json, write_json, write_text
from mmkd.rundir import Root, TrialDir
from slurm.backend import Job, SubmissionDelayed, SubmissionRefused
from sweeps.controller.job_names import job_tag
from sweeps.controller.last_words import last_line
from sweeps.controller.loop import Controller
from sweeps.controller.make_job import make_job
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.controller.stopping import Interrupted, Stop
from sweeps.controller.tasks import tuning_task
from sweeps.rows import Row


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "runs")


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    return rows_of(study_file, tmp_path)["no_kd"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.controller.jobs.SHORTEST_WAIT", 0.01)
    monkeypatch.setattr("sweeps.controller.jobs.LONGEST_WAIT", 0.01)


def test_a_full_queue_is_waited_for_and_leaves_no_attempt_behind(row: Row, root: Root) -> None:
    full = SubmissionDelayed("QOSMaxSubmitJobPerUserLimit", certain=True)
    backend = FakeCluster(lambda n: full if n in (1, 3, 4) else None)
    _, said = run(row, root, backend)
    assert states(row) == ["1"] * 3
    assert said.count("QOSMaxSubmitJobPerUserLimit") == 2, "said once each time that it begins"
    trials = row.directory.trials()
    assert [len(read_attempts(trial)) for trial in trials] == [1] * len(trials)


def test_a_job_that_was_made_though_sbatch_failed_is_found_by_its_name(row: Row, root: Root) -> None:
    unsure = SubmissionDelayed("Socket timed out", certain=False)
    backend = FakeCluster(lambda n: unsure if n == 2 else None)
    run(row, root, backend)
    names = [job.name for job in backend.jobs]
    assert len(names) == len(set(names)) == 3 + 2, "no trial was submitted twice"
    assert states(row) == ["1"] * 3


def test_a_job_that_never_came_to_be_is_submitted_again_under_another_number(row: Row, root: Root) -> None:
    backend = FakeCluster()
    backend.refuses = lambda n: SubmissionDelayed("timed out", certain=False) if n == 1 else None
    lost: list[Job] = []
    submit = FakeBackend.submit
    backend.submit = lambda job: lost_or(job)  # type: ignore[method-assign]

    def lost_or(job: Job) -> str:
        if not lost:
            lost.append(job)
            raise SubmissionDelayed("timed out", certain=False)
        return submit(backend, job)

    run(row, root, backend)
    trial = row.directory.trial(0)
    assert [a.end for a in read_attempts(trial)] == ["cancelled", "complete"]


def test_what_the_scheduler_will_never_take_ends_the_launch_in_its_words_and_leaves_no_attempt(
    row: Row, root: Root
) -> None:
    backend = FakeCluster(lambda n: SubmissionRefused("invalid partition specified: gpux"))
    with pytest.raises(UserError, match="no_kd trial 0: invalid partition specified: gpux"):
        run(row, root, backend)
    trial = row.directory.trial(0)
    assert (current_attempt(trial), read_attempts(trial)) == (0, [])
    run(row, root, FakeCluster())
    assert states(row) == ["1"] * 3


def test_a_relaunch_with_fewer_slots_watches_all_jobs_that_live(row: Row, root: Root) -> None:
    backend = FakeCluster(delay=50)
    rounds = iter(range(1000))
    with pytest.raises(Interrupted):
        run(row, root, backend, 3, stop=lambda: Stop.WITHOUT_JOBS if next(rounds) > 3 else None)
    assert len(backend.live) == 3, "its jobs were left alone"
    work = RowWork(row, 1, Path(__file__))
    with Reporter(Console(quiet=True)) as reporter:
        controller = Controller([work], root, backend, 1, reporter, interval=0.001)
        controller._attach_living()
        assert len(controller.jobs.running) == 3
        controller.run()
    work.close()
    assert len(backend.jobs) == 3 + 2


def test_a_kill_between_submission_and_record_is_mended_by_the_jobs_name(row: Row, root: Root) -> None:
    backend = FakeCluster(delay=30)
    rounds = iter(range(1000))
    with pytest.raises(Interrupted):
        run(row, root, backend, 3, stop=lambda: Stop.WITHOUT_JOBS if next(rounds) > 3 else None)
    for trial in row.directory.trials():
        record = read_json(trial.controller_record(1))
        del record["job"]
        write_json(trial.controller_record(1), record)
    run(row, root, backend, 3)
    assert len(backend.jobs) == 3 + 2
    assert [a.submitted.job for t in row.directory.trials() for a in read_attempts(t)] == ["0", "1", "2"]


def test_accounting_takes_the_place_of_our_own_reckoning(row: Row, root: Root) -> None:
    run(row, root, FakeCluster())
    attempts = [a for t in row.directory.trials() for a in read_attempts(t)]
    assert [(a.submitted.gpu_seconds, a.submitted.node) for a in attempts] == [(3600.0, "n1")] * 3


def test_nothing_is_submitted_past_the_budget_and_a_higher_one_goes_on(row: Row, root: Root) -> None:
    backend = FakeCluster()
    _, said = run(row, root, backend, 1, max_gpu_hours=1.5)  # each attempt is booked with an hour
    assert len(backend.jobs) == 2
    assert "2.00 GPU-hours are spent" in said
    more = FakeCluster()
    run(row, root, more, 1, max_gpu_hours=1.5)
    assert more.jobs == [], "what earlier launches spent counts"
    run(row, root, more, 1, max_gpu_hours=10)
    assert states(row) == ["1"] * 3
    assert len(more.jobs) == 1 + 2


def test_after_each_loss_of_memory_a_job_gets_twice_as_much_and_a_failed_node_is_avoided(row: Row, root: Root) -> None:
    ends = {1: Failure.OUT_OF_MEMORY, 2: Failure.NODE_FAIL, 3: Failure.OUT_OF_MEMORY}
    backend = FakeCluster(fails=lambda job, attempt: ends.get(attempt) if ".t0." in job.name else None)
    run(row, root, backend)
    mine = [job for job in backend.jobs if ".t0." in job.name]
    assert [job.memory for job in mine] == [1, 2, 2, 4]
    assert [job.avoid for job in mine] == [(), (), ("n1",), ("n1",)]


def test_a_job_that_says_it_ended_frees_its_slot_before_the_scheduler_knows(row: Row, root: Root) -> None:
    """The queue still shows it; its record does not."""
    backend = FakeCluster(delay=10_000)
    ended: list[str] = []

    def stop() -> Stop | None:
        for identifier in [i for i in backend.live if i not in ended]:
            ended.append(identifier)
            backend._end(backend.jobs[int(identifier)])
            directory, attempt = TrialDir(Path(backend.jobs[int(identifier)].command[3])), 1
            record_run(directory, attempt, started=time.time(), end="complete", ended=time.time())
        return None

    run(row, root, backend, stop=stop)
    assert states(row) == ["1"] * 3


def test_trials_that_failed_for_good_are_tried_again_when_asked_under_new_numbers(row: Row, root: Root) -> None:
    fails = FakeCluster(fails=lambda job, attempt: Failure.ERROR if ".t1." in job.name else None)
    run(row, root, fails)
    assert Counter(states(row)) == {"1": 2, "3": 1}
    work = RowWork(row, 2, Path(__file__))
    assert (work.remaining, work.retry_failed(), work.remaining) == (0, 1, 3)
    assert work.retry_failed() == 0, "once"
    work.close()
    run(row, root, FakeCluster())
    assert Counter(states(row)) == {"1": 3, "3": 1}
    first, again = (read_json(row.directory.trial(n).config)["training"]["learning_rate"] for n in (1, 3))
    assert first == again


def test_a_pruner_stops_trials_that_are_worse_and_never_final_runs(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path, "defaults.pruner='median'")["no_kd"]
    plain = rows_of(study_file, tmp_path)["no_kd"]
    assert row.digest != plain.digest, "pruned rows are others: their budgets are"
    work = RowWork(row, 8, Path(__file__))
    try:
        for number, _ in zip(range(7), iter(lambda: work.tuning.sample(), None), strict=False):
            curve = [1.0 if number < 6 else 9.0] * 8
            lines = "".join(f'{{"epoch": {e + 1}, "valid_loss": {v}}}\n' for e, v in enumerate(curve))
            directory = row.directory.trial(number)
            directory.path.mkdir(parents=True)
            write_text(directory.metrics, lines)
            task = tuning_task(row, number, row.default())
            assert work.wants_pruned(task) is (number == 6)
            if number < 6:
                work.tuning.report(number, 1.0)
        assert row.directory.trial(6).stop.read_text() == "median pruner, epoch 8\n"
        assert not work.wants_pruned(task), "once"
    finally:
        work.close()


def test_jobs_are_named_alike_however_the_root_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "elsewhere/deep", "runs"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    spellings = [tmp_path / "runs", Path("../runs"), Path("../here/.././runs"), Path("../runs/")]
    assert {job_tag(Root.at(path)) for path in spellings} == {job_tag(Root(tmp_path / "runs"))}
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert Root.at(tmp_path / "link").path == tmp_path / "link", "on another node it may lead elsewhere"
    (tmp_path / "jump").symlink_to(tmp_path / "elsewhere" / "deep")
    assert Root.at(tmp_path / "jump" / ".." / "runs").path == tmp_path / "elsewhere" / "runs"


def test_a_jobs_name_tells_root_row_trial_and_attempt(row: Row, root: Root) -> None:
    work = RowWork(row, 1, Path(__file__))
    task = next(iter(work.tasks(lambda row, seed: True)))
    work.close()
    names = {make_job(task, k, tag, {}).name for k in (1, 2) for tag in ("mmkd-aaaaaa", "mmkd-bbbbbb")}
    assert len(names) == 4
    assert f"mmkd-aaaaaa.{row.directory.path.name}.t0.a1" in names


@pytest.mark.parametrize("echo_last", [True, False])
def test_what_a_job_died_of_is_the_line_beside_what_srun_says_of_all_that_fail(tmp_path: Path, echo_last: bool) -> None:
    why = "slurmstepd-n1: error: execve(): apptainer: No such file or directory"
    lines = [why, "srun: error: n1: task 0: Exited with exit code 2"]
    directory = TrialDir(tmp_path)
    directory.log(1).parent.mkdir()
    directory.log(1).write_text("\n".join(lines if echo_last else lines[::-1]) + "\n\n")
    assert last_line(directory, 1) == why
    directory.log(1).write_text(lines[1])
    assert last_line(directory, 1) == lines[1], "better than nothing"


def test_an_attempt_is_the_schedulers_word_where_the_job_said_nothing(row: Row, root: Root) -> None:
    backend = FakeCluster(fails=lambda job, attempt: Failure.TIMEOUT if attempt == 1 else None)
    run(row, root, backend)
    for trial in row.directory.trials():
        assert [a.end for a in read_attempts(trial)] == ["timeout", "complete"]
