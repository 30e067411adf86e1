"""The screen fits its terminal; figures are never cut; a log's end is what a terminal would show."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from watched_roots import WatchedRoot, queued, text

from mmkd.errors import UserError
from mmkd.formatting import clock, duration, sparkline
from slurm.monitoring.collecting import Collector
from slurm.monitoring.overview import make_overview
from slurm.monitoring.rows import find_trial, tail_log
from slurm.monitoring.screen import draw, share
from slurm.monitoring.watching import Answer


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> WatchedRoot:
    """Forty rows with long names, many running and waiting trials, failures of every class."""
    watched = WatchedRoot(tmp_path_factory.mktemp("busy") / "runs")
    classes = ("preempted", "timeout", "node_fail", "out_of_memory", "error", "cancelled")
    for number in range(40):
        row = watched.row(f"row_{number}_with_a_name_that_is_rather_long_as_names_go", trials=12, seeds=5)
        if number < 10:
            watched.run(row.trial(0), epochs=number, backend="slurm", job=str(number), name=f"mmkd-0.r{number}.t0.a1")
            watched.announce(row.trial(1), backend="slurm", job=f"1{number}", name=f"mmkd-0.r{number}.t1.a1")
        if number < len(classes):
            watched.run(row.trial(2))
            watched.end(row.trial(2), classes[number], message="RuntimeError: a message of many words " * 5)
        if number % 7 == 0:
            watched.finish(row.trial(3), loss=0.1 * number)
    watched.study("a_study_with_quite_a_long_name", max_gpu_hours=100)
    return watched


def answer_for(watched: WatchedRoot) -> Answer:
    jobs = [queued(str(n), f"mmkd-0.r{n}.t0.a1", "RUNNING", node="gpu-node-017", used="1-02:03:04") for n in range(10)]
    jobs += [queued(f"1{n}", f"mmkd-0.r{n}.t1.a1", "PENDING", reason="QOSMaxJobsPerUserLimit") for n in range(10)]
    return Answer(watched.now, {job.id: job for job in jobs}, "slurm_load_jobs error: Socket timed out" * 9)


SIZES = [(80, 24), (80, 50), (100, 30), (120, 40), (200, 60)]


def lines_of(busy: WatchedRoot, width: int, height: int) -> list[str]:
    overview = make_overview(Collector(busy.root, None).look(), answer_for(busy))
    log = tail_log(busy.root.row("row_0_with_a_name_that_is_rather_long_as_names_go", "0" * 8).trial(0))
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(draw(overview, width, height, log, "q leaves"), end="")
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [*SIZES, (60, 16), (40, 10)])
def test_a_busy_screen_is_never_larger_than_the_terminal(busy: WatchedRoot, width: int, height: int) -> None:
    lines = lines_of(busy, width, height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1] == "q leaves"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_busy_screen_shows_something_of_everything(busy: WatchedRoot, width: int, height: int) -> None:
    lines = lines_of(busy, width, height)

    for title in ("RUNNING 10", "WAITING 16", "ROWS 40", "FAILURES", "LOG "):
        (place,) = (i for i, line in enumerate(lines) if line.startswith(title))
        assert lines[place + 1].startswith(("row_", "preempted", "there is no log yet"))
    assert any(line.startswith("… and ") for line in lines)


def test_figures_are_never_cut_names_lose_their_middle(busy: WatchedRoot) -> None:
    shown = "\n".join(lines_of(busy, 80, 24))

    assert re.search(r"^row_0…\w+ +t0 +1 +0/10 .* gpu-node-017 +1-02:03:04 +1:00:00", shown, re.MULTILINE)
    assert re.search(r"^row_0\w*…\w*names_go +1/12 +0/5 +1 +0.0000 +50.0 +t3", shown, re.MULTILINE)
    assert re.search(r"^row_0\w*…\w*names_go +t1 +1 +pending +QOSMaxJobsPerUserLimit", shown, re.MULTILINE)


def test_a_wider_terminal_shows_more_columns(busy: WatchedRoot) -> None:
    overview = make_overview(Collector(busy.root, None).look(), answer_for(busy))

    assert "to go  heard" not in text(overview, 80)
    assert "to go  heard" in text(overview, 120)
    assert "partition" in text(overview, 120)


def test_a_long_metric_curve_is_drawn_in_the_width_there_is() -> None:
    assert sparkline([1.0, 2.0, 3.0], 8) == "▁▅█"
    assert sparkline([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.5, 0.5], 8) == "▄▄"
    assert sparkline([], 8) == ""


def test_lines_are_shared_and_nobody_gets_a_title_alone() -> None:
    assert share(20, [3, 2, 30, 5]) == [3, 2, 15, 0]
    assert share(9, [2, 30, 30, 9]) == [2, 4, 3, 0]
    assert share(30, [2, 3, 0, 9]) == [2, 3, 0, 9]
    assert share(5, [5, 5, 5, 0]) == [3, 2, 0, 0]
    assert share(1, [5, 5]) == [0, 0]


def test_times_read_as_slurm_and_people_write_them() -> None:
    assert [clock(s) for s in (5, 65, 3661, 93784)] == ["0:05", "1:05", "1:01:01", "1-02:03:04"]
    assert [duration(s) for s in (40, 700, 7200, 12000, 190800)] == ["40 s", "12 min", "2 h", "3 h 20 min", "2 d 5 h"]


def test_the_end_of_a_log_is_what_a_terminal_would_show(watched: WatchedRoot) -> None:
    trial = watched.row("crd").trial(3)
    watched.run(trial)
    trial.log(1).parent.mkdir()
    trial.log(1).write_bytes(b"first\n" * 9000 + b"\x1b[31mred\x1b[0m\n\n10 %\r50 %\r100 %\nlast \xff\n")

    shown = tail_log(trial)

    assert shown.lines[-4:] == ("first", "red", "100 %", "last �")
    assert str(shown.path) == "rows/crd-00000000/trials/3/log/1.txt"


def test_a_trial_is_named_by_its_row_or_its_folder_and_a_wrong_name_is_explained(watched: WatchedRoot) -> None:
    row = watched.row("crd")
    for directory in (row.trial(3), row.final_run(1, "aaaaaaaa"), watched.root.teacher("cafe" * 4)):
        watched.announce(directory)
    watched.study()
    rows = Collector(watched.root, None).look().rows

    for name in ("crd/trials/3", "crd-00000000/trials/3", "rows/crd-00000000/trials/3/"):
        assert find_trial(name, watched.root, rows) == row.trial(3)
    assert find_trial("crd/confirm/1", watched.root, rows) == row.final_run(1, "aaaaaaaa")
    assert find_trial("teachers/cafe", watched.root, rows) == watched.root.teacher("cafe" * 4)
    with pytest.raises(UserError, match=r"--log crd/trials/9: no such trial.*\(3\)"):
        find_trial("crd/trials/9", watched.root, rows)
    with pytest.raises(UserError, match=r"unknown row .* did you mean crd"):
        find_trial("crt/trials/3", watched.root, rows)
