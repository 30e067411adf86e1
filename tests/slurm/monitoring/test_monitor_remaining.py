"""Time to go, slots in use."""

from __future__ import annotations

import pytest
from watched_roots import WatchedRoot, look, text

from slurm.monitoring.remaining import Eta


def test_time_to_go_is_runs_left_by_their_mean_seconds_over_slots(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=8, seeds=2)
    for number in range(4):
        watched.finish(row.trial(number), loss=0.5, seconds=100 + 20 * number, ago=300 - 10 * number)
    for number in (4, 5):
        watched.run(row.trial(number), epochs=5, ago=50)  # half of their epochs
    watched.study()

    eta = look(watched).eta

    assert isinstance(eta, Eta)
    assert (eta.runs, eta.learned) == (6, 4)
    assert eta.mean == pytest.approx(130)
    assert eta.seconds == pytest.approx((6 * 130 - 2 * 0.5 * 130) / eta.slots, rel=0.01)


def test_slots_are_averaged_over_ten_minutes_but_never_fewer_than_run_now(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=9)
    for number in range(3):
        watched.finish(row.trial(number), loss=0.5, seconds=1000, ago=300)  # three at once, until five minutes ago
    watched.run(row.trial(3), ago=300)
    watched.study()

    assert look(watched).slots == pytest.approx((3 * 300 + 300) / 600, rel=0.02)

    for number in range(4, 9):
        watched.run(row.trial(number), ago=0)
    assert look(watched).slots == 6


def test_with_more_slots_than_runs_a_final_run_still_follows_a_tuning_trial(watched: WatchedRoot) -> None:
    row = watched.row("crd", trials=20, seeds=1)
    for number in range(4):
        watched.finish(row.trial(number), loss=0.5, seconds=100)
    for number in range(4, 20):
        watched.run(row.trial(number), epochs=0, ago=1)
    watched.study()

    eta = look(watched).eta

    assert isinstance(eta, Eta)
    assert eta.seconds == pytest.approx(200)


@pytest.mark.parametrize(
    ("finished", "running", "words"),
    [(2, 1, "no estimate before 3 runs have finished"), (3, 0, "nothing runs just now"), (4, 0, "all is done")],
)
def test_where_no_time_can_be_said_the_reason_is(watched: WatchedRoot, finished: int, running: int, words: str) -> None:
    row = watched.row("crd", trials=4, seeds=0)
    for number in range(finished):
        watched.finish(row.trial(number), loss=0.5)
    for number in range(finished, finished + running):
        watched.run(row.trial(number))
    watched.study()

    assert words in text(look(watched))
