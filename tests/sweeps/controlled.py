"""Plan the rows of a study file, run a controller on them, and read what was reported to Optuna."""

import json
from collections.abc import Callable
from pathlib import Path

from fakes import FakeBackend
from rich.console import Console

from mmkd.data import read_info
from mmkd.rundir import Root
from sweeps.controller.loop import Controller
from sweeps.controller.progress import Reporter
from sweeps.controller.row import RowWork
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.rows import Row
from sweeps.study_file import load_study, parse_override


def rows_of(path: Path, tmp_path: Path, *overrides: str) -> dict[str, Row]:
    study = load_study(path, [parse_override(text) for text in overrides])
    info = read_info(Path(study.data))
    machine = Machine(info.path, threads=1, device="cpu")
    rows = plan(study, path, load_profile(study.profile, info.source)[1], info, Root(tmp_path / "runs"), machine)
    return {row.title: row for row in rows}


def run(
    rows: list[Row],
    root: Root,
    backend: FakeBackend,
    parallel: int = 2,
    stop: Callable[[], bool] = lambda: False,
    on_choice: Callable[[], None] = lambda: None,
) -> list[RowWork]:
    """What one launch does, without its command line."""
    works: list[RowWork] = []
    try:
        works.extend(RowWork(row, parallel, Path(__file__)) for row in rows)
        with Reporter(Console(quiet=True)) as reporter:
            Controller(works, root, backend, parallel, reporter, stop, on_choice=on_choice, interval=0.0).run()
    finally:
        for work in works:
            work.close()
    return works


def states(row: Row) -> list[str]:
    """Optuna's states of a row's trials, from its journal."""
    reported: dict[int, str] = {}
    for line in row.directory.journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == 6:  # a trial's state and values
            assert reported.get(entry["trial_id"]) not in ("1", "3"), "reported twice"
            reported[entry["trial_id"]] = str(entry["state"])
    return list(reported.values())
