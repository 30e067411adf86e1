"""Show studies once or live, on a terminal with keys."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live

from mmkd.rundir import Root, TrialDir
from mmkd.trial_state import State
from slurm.monitoring.collecting import Collector, Survey
from slurm.monitoring.export import to_json
from slurm.monitoring.overview import Overview, make_overview
from slurm.monitoring.rows import LogTail, find_trial, tail_log
from slurm.monitoring.screen import draw
from slurm.monitoring.watching import Sign, Squeue

REFRESH_SECONDS = 2.0
READING_SHARE = 0.2
"""At most this share of the time is spent reading: a slow file system is looked at less often."""
FIRST_SECONDS = 0.5
"""So long is read before something is shown; what is not read by then follows."""

PIPED_WIDTH = 120


class Monitor:
    """The studies that are watched, and the trial whose log is shown."""

    def __init__(self, root: Root, study: str | None, log: str | None) -> None:
        self.collector, self.squeue = Collector(root, study), Squeue()
        self.wanted_log = log
        self.logged: TrialDir | None = None

    def look(self, seconds: float = float("inf"), *, wait: bool = False) -> Overview:
        """An overview of now; `wait` for squeue's answer, else the last one holds.

        Raises:
            UserError: there is no such root, study or trial.
        """
        survey = self.collector.look(seconds)
        self.squeue.ask(users_of(survey), wait=wait)
        if self.wanted_log is not None:
            self.logged, self.wanted_log = find_trial(self.wanted_log, self.collector.root, survey.rows), None
        return make_overview(survey, self.squeue.answer)

    def log(self) -> LogTail | None:
        """The end of the log that is shown."""
        return tail_log(self.logged) if self.logged else None

    def step(self, overview: Overview, steps: int) -> None:
        """Show the next or the previous log: of what runs, then of what failed, then none."""
        chosen = overview.select(State.RUNNING, *Sign) + overview.select(State.FAILED, State.RETRY_DUE)
        logs: list[TrialDir | None] = [None, *(watched.trial.entry.directory for watched in chosen)]
        here = logs.index(self.logged) if self.logged in logs else 0
        self.logged = logs[(here + steps) % len(logs)]


def users_of(survey: Survey) -> set[str]:
    """Owners of the jobs that Slurm runs or is about to run, whose queue to ask for."""
    open_trials = [trial for trial in survey.trials if trial.last and not trial.last.end]
    paths = [t.entry.directory.path for t in open_trials if t.last and t.last.submitted.backend == "slurm"]
    if any(row.winner is None for row in survey.rows):
        root = Root(survey.root)
        paths += [root.controller_script(study.name) for study in survey.studies if study.controller_job]
    return {_owner(path) for path in paths}


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)  # squeue takes a number too


def watch_once(monitor: Monitor, console: Console, *, as_json: bool, each_replicate: bool) -> None:
    """Print everything once; a terminal shows the progress of the reading."""
    errors = Console(stderr=True)
    with errors.status("") if errors.is_terminal else nullcontext() as status:
        while unread := monitor.collector.look(FIRST_SECONDS).unread:
            if status:
                status.update(f"reading: {unread:,} trials to go")
        overview = monitor.look(wait=True)
    if as_json:
        print(json.dumps(to_json(overview), indent=2, allow_nan=False))  # ASCII: nothing in it steers a terminal
        return
    with console.capture() as captured:
        console.print(draw(overview, console.width, None, monitor.log(), each_replicate=each_replicate))
    print("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")))


def watch_live(monitor: Monitor, console: Console, *, each_replicate: bool) -> None:
    """Show the live view until the user leaves."""
    keys = "q leaves, n and p show the logs of what runs or failed, r each replicate of a row"
    foot = keys if sys.stdin.isatty() else "Ctrl-C leaves"
    with keyboard() as key, Live(console=console, screen=True, auto_refresh=False) as live:
        patience = FIRST_SECONDS
        while True:
            began = time.monotonic()
            overview = monitor.look(patience)
            took = time.monotonic() - began
            patience = REFRESH_SECONDS
            pause = 0.0 if overview.survey.unread else max(REFRESH_SECONDS, took / READING_SHARE)
            until = time.monotonic() + pause
            pressed: str | None = ""
            while pressed is not None:
                size = console.width, console.height  # the terminal's size now
                shown = draw(overview, *size, monitor.log(), foot, each_replicate=each_replicate)
                live.update(shown, refresh=True)
                pressed = key(until - time.monotonic())
                if pressed == "q":
                    return
                each_replicate ^= pressed == "r"
                monitor.step(overview, {"n": 1, "p": -1}.get(pressed or "", 0))


@contextmanager
def keyboard() -> Iterator[Callable[[float], str | None]]:
    """A function that waits so many seconds for a key, and returns it, or None; without a terminal it only waits."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(max(seconds, 0.0))
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def key(seconds: float) -> str | None:
        ready, _, _ = select.select([descriptor], [], [], max(seconds, 0.0))
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else None

    try:
        tty.setcbreak(descriptor)
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def show(
    root: Root, study: str | None, log: str | None, *, once: bool, as_json: bool, each_replicate: bool = False
) -> None:
    """Show a root's studies, or one, with a trial's log: live on a terminal, else once.

    Raises:
        UserError: there is no such root, study or trial.
    """
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPED_WIDTH)
    monitor = Monitor(root, study, log)
    if once or as_json or not console.is_terminal:
        watch_once(monitor, console, as_json=as_json, each_replicate=each_replicate)
    else:
        watch_live(monitor, console, each_replicate=each_replicate)
