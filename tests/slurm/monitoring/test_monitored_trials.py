"""What files and queue say of trials, rows, teachers and controllers."""

from __future__ import annotations

import getpass
import os
import re
import socket
import time

import pytest
from recorded import winner_record
from watched_roots import TEACHER, FakeSqueue, WatchedRoot, conditions, ended_process, look, queued, text

from mmkd.files import write_json
from mmkd.lock import FileLock
from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.monitoring.collecting import Collector
from slurm.monitoring.live import Monitor
from slurm.monitoring.watching import Answer, Sign, Squeue


def test_a_running_trial_is_shown_with_its_epoch_last_metric_and_curve(watched: WatchedRoot) -> None:
    watched.run(watched.row("crd").trial(0), epochs=4)
    watched.study()

    line = next(line for line in text(look(watched)).splitlines() if line.startswith("crd") and "t0" in line)

    assert "4/10" in line
    assert "0.2500" in line  # valid loss of epoch 4
    assert "█▃▂▁" in line  # 1, 1/2, 1/3, 1/4
    assert "node1" in line


def test_a_trial_whose_process_is_gone_is_lost_and_one_of_another_host_is_believed(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.run(row.trial(0), job=ended_process())
    watched.run(row.trial(1), job="elsewhere:1:1.00:")
    watched.study()

    assert conditions(look(watched)) == {"crd t0": Sign.LOST, "crd t1": State.RUNNING}


def test_what_is_to_be_retried_is_left_to_do_and_what_failed_is_not(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=4, seeds=2)
    for number, *ends in ((0, "preempted"), (1, "error", "error"), (2, "error")):
        for attempt, end in enumerate(ends, start=1):
            watched.run(row.trial(number), attempt=attempt)
            watched.end(row.trial(number), end, attempt, message="ValueError: no such thing")
    watched.study()

    overview = look(watched)

    assert conditions(overview) == {
        "crd t0": State.RETRY_DUE,
        "crd t1": State.FAILED,
        "crd t2": State.RETRY_DUE,
    }
    assert overview.left == 3 + 2
    shown = text(overview, 100)
    assert re.search(r"error +3 +2 +crd t1 +ValueError: no such thing", shown)
    assert re.search(r"preempted +1 +1 +crd t0", shown)


def test_a_teacher_that_failed_is_not_left_to_do_either(watched: WatchedRoot) -> None:
    watched.row("crd", trials=4, seeds=2, teacher=True)
    watched.study()
    before = look(watched)
    directory = watched.root.teacher("0" * 16)
    watched.run(directory)
    write_json(directory.config, {**TEACHER, "network": {"width": 8}, "data": {"fingerprint": "f" * 8}, "seed": 0})
    watched.end(directory, "error", message="ValueError: no such thing")
    between = look(watched)
    watched.run(directory, attempt=2)
    write_json(directory.config, {**TEACHER, "network": {"width": 8}, "data": {"fingerprint": "f" * 8}, "seed": 0})
    watched.end(directory, "error", attempt=2, message="ValueError: no such thing")
    after = look(watched)
    assert (before.left, before.count(State.FAILED)) == (3 + 4 + 2, 0)
    assert (between.left, between.count(State.RETRY_DUE)) == (3 + 4 + 2, 1)
    assert (after.left, after.count(State.FAILED)) == (2 + 4 + 2, 1)


def test_an_attempt_that_failed_and_went_on_is_counted_but_its_trial_is_not(
    watched: WatchedRoot,
) -> None:
    trial = watched.row("crd").trial(0)
    watched.run(trial, attempt=1)
    watched.end(trial, "timeout")
    watched.run(trial, attempt=2)
    watched.study()

    (failure,) = look(watched).failures

    assert (failure.failure, failure.attempts, failure.trials) == ("timeout", 1, 0)


@pytest.mark.parametrize(("selection", "best"), [("loss", "t1"), ("accuracy", "t2")])
def test_the_best_is_of_the_complete_trials_by_the_selection_metric(
    watched: WatchedRoot, selection: str, best: str
) -> None:
    row = watched.row("crd", selection=selection)
    watched.finish(row.trial(0), loss=0.5, accuracy=0.5)
    watched.finish(row.trial(1), loss=0.3, accuracy=0.6)
    watched.finish(row.trial(2), loss=0.4, accuracy=0.7)
    watched.finish(row.trial(3), loss=0.1, accuracy=0.9, status=Status.PRUNED)
    watched.finish(row.trial(4), loss=0.0, status=Status.DIVERGED)
    watched.study()

    (count,) = look(watched).rows

    assert count.best is not None
    assert count.best.entry.name == best
    assert (count.ended, count.sampled) == (5, 5)


def test_final_runs_of_a_former_winner_do_not_count_but_their_gpu_hours_do(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=1, seeds=1)
    watched.finish(row.trial(0), loss=0.5, seconds=1800)
    write_json(row.winner, winner_record({1: "1-bbbbbbbb"}))
    watched.finish(row.final_run(1, "aaaaaaaa"), loss=0.5, seconds=1800)
    watched.study(max_gpu_hours=3)

    overview = look(watched)

    assert (overview.rows[0].final, overview.left) == (0, 1)
    assert overview.gpu_hours.spent == pytest.approx(1.0)
    assert "GPU-hours 1.00 of 3, 2.00 left" in text(overview)


def test_teachers_are_those_that_the_rows_of_the_study_need_one_a_seed(watched: WatchedRoot) -> None:
    watched.row("crd", seeds=2, teacher=True)
    watched.row("edam", seeds=3, teacher=True)
    watched.study()
    for number, network in enumerate(({"width": 8}, {"width": 99})):
        directory = watched.root.teacher(f"{number}" * 16)
        watched.finish(directory, loss=0.1)
        write_json(directory.config, {**TEACHER, "network": network, "data": {"fingerprint": "f" * 8}, "seed": 0})

    overview = look(watched)

    assert (overview.teachers_trained, overview.teachers_needed) == (1, 4)  # seeds 0 to 3; not the wider one
    assert (look(watched, study=None).teachers_trained) == 2


def test_rows_shared_by_studies_are_shown_once_and_rows_of_no_study_too(watched: WatchedRoot) -> None:
    watched.row("no_kd", trials=4)
    watched.study("small")
    watched.wanted[0]["trials"] = 9
    watched.study("large")
    watched.wanted.clear()
    watched.row("orphan")

    rows = look(watched, study=None).rows

    assert [(count.row.name, count.row.trials) for count in rows] == [("no_kd", 9), ("orphan-00000000", 0)]


def test_a_controller_is_heard_of_and_a_dead_one_is_missed(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    watched.study()
    with FileLock(row.lock):
        assert f"controller: process {os.getpid()} on {socket.gethostname()}" in text(look(watched))
    write_json(row.lock, {"host": socket.gethostname(), "pid": int(ended_process().split(":")[1])})

    assert "no controller at work" in text(look(watched))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("result.h5", "result.h5: not a readable result"),
        ("attempts/1.json", r"1\.json: Input should be a valid dictionary"),
    ],
)
def test_a_trial_that_cannot_be_read_is_named_and_hides_no_other(watched: WatchedRoot, damage: str, words: str) -> None:
    row = watched.row("crd")
    for number in range(2):
        watched.finish(row.trial(number), loss=0.5)
    (row.trial(0).path / damage).write_bytes(b"[1]")
    watched.study()

    overview = look(watched)

    assert conditions(overview) == {"crd t1": Status.COMPLETE}
    assert re.search(rf"cannot be read: rows/crd-00000000/trials/0: .*{words}", " ".join(text(overview, 500).split()))


def test_the_queue_tells_reason_start_node_and_times_of_our_jobs(watched: WatchedRoot, squeue: FakeSqueue) -> None:
    row = watched.row("crd")
    watched.run(row.trial(0), backend="slurm", job="7", name="mmkd-0.crd.t0.a1")
    watched.announce(row.trial(1), backend="slurm", job="8", name="mmkd-0.crd.t1.a1")
    watched.study()
    squeue.show(
        "7|RUNNING|None|n3|gpu|1:02|58:58|2026-11-21T12:00:00|mmkd-0.crd.t0.a1",
        "8|PENDING|Resources||gpu|0:00|1:00:00|2026-11-21T14:05:00|mmkd-0.crd.t1.a1",
        "9|PENDING|Priority||cpu|0:00|1:00:00|N/A|a job | of mine",
    )

    shown = text(Monitor(watched.root, None, None).look(wait=True))

    assert re.search(r"crd +t0 +1 +3/10 .* n3 +1:02 +58:58", shown)
    assert re.search(r"crd +t1 +1 +pending +Resources +11-21 14:05", shown)
    assert "other jobs of the same user: 1 pending" in shown
    assert f"-u {getpass.getuser()}" in squeue.calls[0]


def test_squeue_is_asked_once_in_thirty_seconds_and_not_at_all_where_nothing_is_on_slurm(
    watched: WatchedRoot, squeue: FakeSqueue
) -> None:
    row = watched.row("crd")
    watched.run(row.trial(0))
    watched.study()
    watch = Monitor(watched.root, None, None)
    for _ in range(2):
        watch.look(wait=True)
    assert squeue.calls == []

    watched.announce(row.trial(1), backend="slurm", job="8", name="mmkd-0.crd.t1.a1")
    for _ in range(3):
        watch.look(wait=True)
    assert len(squeue.calls) == 1


def test_a_job_that_the_queue_does_not_show_is_lost_unless_it_is_younger_than_the_answer(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    for number, ago in enumerate((100, 100, 100, 1)):
        name = f"mmkd-0.crd.t{number}.a1"
        watched.announce(row.trial(number), backend="slurm", job=str(number), name=name, ago=ago)
    watched.study()
    jobs = [queued("0", "somebody else's", "RUNNING"), queued("1", "mmkd-0.crd.t1.a1", "TIMEOUT")]
    answer = Answer(watched.now, {job.id: job for job in jobs})

    lost = dict.fromkeys(("crd t0", "crd t1", "crd t2"), Sign.LOST)
    assert conditions(look(watched, answer)) == {**lost, "crd t3": State.PENDING}


def test_a_job_whose_id_was_never_noted_is_found_by_its_name(watched: WatchedRoot) -> None:
    watched.announce(watched.row("crd").trial(0), backend="slurm", name="mmkd-0.crd.t0.a1")
    watched.study()
    answer = Answer(watched.now, {"5": queued("5", "mmkd-0.crd.t0.a1", "PENDING")})

    assert conditions(look(watched, answer)) == {"crd t0": State.PENDING}


def test_where_slurm_does_not_answer_files_are_believed_and_its_words_are_shown(
    watched: WatchedRoot, squeue: FakeSqueue
) -> None:
    row = watched.row("crd")
    watched.run(row.trial(0), backend="slurm", job="7", name="mmkd-0.crd.t0.a1")
    watched.announce(row.trial(1), backend="slurm", job="8", name="mmkd-0.crd.t1.a1")
    watched.study()
    squeue.complain("slurm_load_jobs error: Unable to contact slurm controller")

    overview = Monitor(watched.root, None, None).look(wait=True)

    assert conditions(overview) == {"crd t0": State.RUNNING, "crd t1": State.PENDING}
    assert "Unable to contact slurm controller" in " ".join(text(overview).split())


def test_a_slow_squeue_does_not_hold_up_the_screen(watched: WatchedRoot, squeue: FakeSqueue) -> None:
    squeue.output.write_text("sleep 2\n")
    asker = Squeue()

    began = time.monotonic()
    asker.ask({"somebody"})

    assert time.monotonic() - began < 1
    assert asker.answer is None


def test_a_controller_that_waits_as_a_job_is_no_missing_controller(watched: WatchedRoot, squeue: FakeSqueue) -> None:
    watched.row("crd")
    watched.study()
    watched.root.controller_log("study").with_suffix(".sbatch").write_text(
        "#!/bin/sh\n#SBATCH --job-name=mmkd-0.c.study\n"
    )
    squeue.show("4|PENDING|Priority||cpu|0:00|1:00:00|N/A|mmkd-0.c.study")

    shown = text(Monitor(watched.root, None, None).look(wait=True))

    assert "controller: job 4 pending (Priority)" in shown
    assert "no controller at work" not in shown
    assert "other jobs" not in shown


def test_a_teacher_that_is_claimed_and_not_begun_is_nobodys_trial_until_it_has_a_configuration(
    watched: WatchedRoot,
) -> None:
    watched.row("crd", teacher=True)
    watched.study()
    directory = watched.root.teacher("a" * 16)
    directory.path.mkdir(parents=True)
    collector = Collector(watched.root, None)
    assert collector.look().trials == ()

    watched.run(directory)
    write_json(directory.config, {**TEACHER, "data": {"fingerprint": "f" * 8}, "seed": 1})
    assert [(t.entry.label, t.entry.name) for t in collector.look().trials] == [("teacher", "s1")]
