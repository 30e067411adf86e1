"""All readers agree on the state of a trial: one root holds all combinations, and each reader is asked.

Each combination is a tuning trial, a final run or a teacher: its last attempts, its result, whether another winner
superseded it (final runs alone), whether it was asked to stop, and whether its job lives.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from recorded import row_record, winner_record

from analysis import examine, load
from analysis.doctor import UNFINISHED
from analysis.figures.tuning import tuning_data
from analysis.loading.replicate_runs import ended
from analysis.loading.runs import Runs
from analysis.loading.study_rows import collect
from analysis.tables.ablation import table
from mmkd.attempts import record_run, record_submission
from mmkd.config import DataSource, Distillation, Network, StudentConfig, TeacherConfig, Training, to_json
from mmkd.failures import RULES, Failure
from mmkd.files import write_json, write_text
from mmkd.result_file import Result, Status, write_result
from mmkd.rundir import Root, RowDir, TrialDir
from mmkd.trial_state import State, decide, trial_state
from slurm.monitoring.collecting import Collector
from slurm.monitoring.export import to_json as export
from slurm.monitoring.overview import make_overview
from slurm.monitoring.watching import Sign, watch
from sweeps.actions.clean import unneeded
from sweeps.actions.status import show_status
from sweeps.launched_study import RecordedStudy, read_recorded, without_end

AT_LIMIT = {failure: [failure.value] * (rule.limit or 9) for failure, rule in RULES.items()}
ENDLESS = [failure for failure, rule in RULES.items() if rule.limit is None]
ATTEMPTS: dict[str, tuple[list[str], State]] = {
    "no attempt": ([], State.SAMPLED),
    "announced": ([""], State.PENDING),
    "started": (["started"], State.RUNNING),
    "started again": (["error", "error", "started"], State.RUNNING),
    **{f"{failure} once": ([failure.value], State.RETRY_DUE) for failure in Failure if RULES[failure].limit != 1},
    **{f"{failure} at its limit": (ends, State.FAILED) for failure, ends in AT_LIMIT.items() if RULES[failure].limit},
    **{f"{failure} for ever": (AT_LIMIT[failure], State.RETRY_DUE) for failure in ENDLESS},
    **{f"{failure} below its limit": (ends[1:], State.RETRY_DUE) for failure, ends in AT_LIMIT.items() if ends[1:]},
    "unlike failures": (["error", "out_of_memory", "error"], State.RETRY_DUE),
    "an epoch gained": (["error", "error+1"], State.RETRY_DUE),
    "complete without a result": (["complete"], State.RETRY_DUE),
}
"""Ends of a trial's attempts, in order, and the state that they leave it in."""


@dataclass(frozen=True)
class Case:
    """A combination; `number` is its seed, and a tuning trial's number."""

    kind: str
    number: int
    attempts: str
    result: Status | None
    superseded: bool
    stop: bool
    lives: bool

    @property
    def state(self) -> State:
        """Stop file and job decide nothing; a result does, and then a job that may live."""
        if self.result is not None:
            return State.FINISHED
        state = ATTEMPTS[self.attempts][1]
        return State.SUPERSEDED if self.superseded and not state.is_live else state

    @property
    def is_unrecorded(self) -> bool:
        """Its controller watches it first, to record the end of its last attempt, even where there is a result."""
        return ATTEMPTS[self.attempts][1] is State.RUNNING

    @property
    def word(self) -> str:
        """As tables and the monitor show it."""
        return (self.result or self.state).value


CASES = [
    Case(kind, number, *facts)
    for kind, superseded in (("confirm", [False, True]), ("tuning", [False]), ("teacher", [False]))
    for number, facts in enumerate(product(ATTEMPTS, [None, *Status], superseded, [False, True], [False, True]))
]


def states_of(kind: str) -> Counter[State]:
    """States of the cases of a kind, without final runs of former winners."""
    return Counter(case.state for case in CASES if case.kind == kind and not case.superseded)


@pytest.fixture(scope="module")
def no_fsync() -> Iterator[None]:
    """Thousands of small files need not be on the disk before the next is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, no_fsync: None) -> tuple[Root, RowDir, dict[Path, Case]]:
    """A root with a row that has all cases, and Optuna's journal of its tuning trials."""
    root = Root(tmp_path_factory.mktemp("states") / "runs")
    row = root.row("crd", "0" * 8)
    row.path.mkdir(parents=True)
    space = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    write_json(row.row, row_record(training={"epochs": 9}, space=space, sampler="random"))
    mine = psutil.Process(os.getpid())
    living = f"{socket.gethostname()}:{mine.pid}:{mine.create_time():.2f}:"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = f"{socket.gethostname()}:{child.pid}:{psutil.Process(child.pid).create_time():.2f}:"
    child.communicate(b"\n")
    cases = {}
    for case in CASES:
        directory = {
            "tuning": row.trial(case.number),
            "confirm": row.final_run(case.number, "a" * 8),
            "teacher": root.teacher(f"{case.number:016}"),
        }[case.kind]
        make(directory, case, living if case.lives else dead)
        cases[directory.path] = case
    tuning = [case for case in CASES if case.kind == "tuning"]
    report(row, tuning)
    counting = {c.number: path.name for path, c in cases.items() if c.kind == "confirm" and not c.superseded}
    write_json(row.winner, winner_record(counting, trials=len(tuning)))
    teachers = [path.name for path, case in cases.items() if case.kind == "teacher"]
    facts = {"name": "crd", "label": "CRD", "group": None, "directory": row.path.name, "teachers": teachers}
    root.study("states").parent.mkdir()
    rows = [{**facts, "trials": len(tuning), "seeds": list(counting)}]
    write_json(root.study("states"), {"name": "states", "title": "all states", "control": None, "rows": rows})
    return root, row, cases


def report(row: RowDir, tuning: list[Case]) -> None:
    """Write the journal as a controller that has reported every trial without retries left."""
    storage = JournalStorage(JournalFileBackend(str(row.journal)))
    study = optuna.create_study(storage=storage, study_name=row.path.name)
    for case in tuning:
        reported = {State.FINISHED: TrialState.COMPLETE, State.FAILED: TrialState.FAIL}
        state = reported.get(case.state, TrialState.RUNNING)
        value = 0.5 if state is TrialState.COMPLETE else None
        study.add_trial(optuna.trial.create_trial(state=state, value=value))


def make(directory: TrialDir, case: Case, job: str) -> None:
    facts: dict[str, Any] = {
        "data": DataSource(path="/d.h5", fingerprint="f" * 64),
        "network": Network(),
        "training": Training(epochs=9),
        "seed": case.number,
        "evaluate_test": case.kind != "tuning",
    }
    distillation = Distillation(method="crd", alpha=0.5, temperature=2.0)
    config: TeacherConfig | StudentConfig = (
        TeacherConfig(**facts)
        if case.kind == "teacher"
        else StudentConfig(**facts, primary="video", pairing="others", distillation=distillation, teacher=None)
    )
    directory.path.mkdir(parents=True)
    write_json(directory.config, to_json(config))
    for number, text in enumerate(ATTEMPTS[case.attempts][0], start=1):
        record_submission(
            directory, number, submitted=10.0 + number, backend="local", job=job, name=f"{case.kind}-{case.number}"
        )
        write_text(directory.attempt, f"{number}\n")
        end, _, epochs = text.partition("+")
        if end:
            record_run(directory, number, started=10.0, host="node1")
        if end not in ("", "started"):
            record_submission(directory, number, end=end, message="it broke", epochs=int(epochs or 0), ended=11.0)
    if case.superseded:
        write_text(directory.superseded, "trial 7 is the row's winner now\n")
    if case.stop:
        write_text(directory.stop, "median pruner, epoch 3\n")
    if case.result:
        metrics = {"valid": {"loss": 0.5, "accuracy": 0.5}} if case.result is Status.COMPLETE else {}
        write_result(directory, Result(case.result, to_json(config), metrics=metrics, epochs=9))


@pytest.fixture(scope="module")
def cases(made: tuple[Root, RowDir, dict[Path, Case]]) -> dict[Path, Case]:
    return made[2]


@pytest.fixture(scope="module")
def study(made: tuple[Root, RowDir, dict[Path, Case]]) -> RecordedStudy:
    return read_recorded(made[0], "states")


@pytest.fixture(scope="module")
def runs(made: tuple[Root, RowDir, dict[Path, Case]]) -> Runs:
    found = load(made[0].path, cache=False)
    assert found.rejected.empty
    return found


def test_the_state_is_a_function_of_the_directory(cases: dict[Path, Case]) -> None:
    assert {path: trial_state(TrialDir(path)) for path in cases} == {path: case.state for path, case in cases.items()}
    assert {case.state for case in CASES} == set(State)


def test_the_controller_acts_on_it(cases: dict[Path, Case]) -> None:
    wanted = {path: State.RUNNING if case.is_unrecorded else case.state for path, case in cases.items()}
    assert {path: decide(TrialDir(path), "") for path in cases} == wanted


def test_a_relaunch_retries_what_failed_and_else_changes_nothing(cases: dict[Path, Case]) -> None:
    before = {path: decide(TrialDir(path), "") for path in cases}
    wanted = {path: State.RETRY_DUE if state is State.FAILED else state for path, state in before.items()}
    assert {path: decide(TrialDir(path), "of another launch") for path in cases} == wanted


def test_the_monitor_shows_it(made: tuple[Root, RowDir, dict[Path, Case]], cases: dict[Path, Case]) -> None:
    survey = Collector(made[0], None).look()
    watched = {w.trial.entry.directory.path: w for w in (watch(trial, None) for trial in survey.trials)}
    assert {path: w.state for path, w in watched.items()} == {path: case.state for path, case in cases.items()}
    shown = {path: case.word for path, case in cases.items()}
    for path, case in cases.items():
        if case.state.is_live and not case.lives:
            shown[path] = Sign.LOST
        elif case.state is State.PENDING:
            shown[path] = Sign.STARTING
    assert {path: w.shown.value for path, w in watched.items()} == shown

    overview = make_overview(survey, None)
    counting = Counter(shown[path] for path, case in cases.items() if not case.superseded)
    counted = export(overview)["runs"]
    words = (State.SAMPLED, State.RETRY_DUE, State.FAILED, Sign.LOST, *Status)
    assert {word: counted[word] for word in words} == {word: counting[word] for word in words}
    assert counted["running"] == counting[State.RUNNING] + counting[Sign.STARTING]
    left = overview.rows[0].left
    open_trials = {kind: open_of(states_of(kind)) for kind in ("tuning", "confirm", "teacher")}
    assert open_trials == {"tuning": left.tuning, "confirm": left.confirm, "teacher": overview.teachers_left}


def open_of(states: Counter[State]) -> int:
    return sum(number for state, number in states.items() if state.is_due or state.is_live)


def test_status_counts_it(study: RecordedStudy, cases: dict[Path, Case], capsys: pytest.CaptureFixture[str]) -> None:
    show_status(study)
    said = capsys.readouterr().out
    tuning, final, teachers = (states_of(kind) for kind in ("tuning", "confirm", "teacher"))
    line = next(line for line in said.splitlines() if line.startswith("crd ")).split()
    assert line[1:3] == [f"{tuning[State.FINISHED] + tuning[State.FAILED]}/{tuning.total()}", f"{open_of(tuning)}"]
    both = tuning + final
    assert [int(cell) for cell in line[3:6]] == [both[s] for s in (State.RUNNING, State.RETRY_DUE, State.FAILED)]
    assert line[6] == f"{final[State.FINISHED]}/{final.total()}"
    told = next(line for line in said.splitlines() if line.startswith("teachers"))
    assert f"{teachers[State.FINISHED]} of {teachers.total()} trained" in told
    words = {"running": State.RUNNING, "to be retried": State.RETRY_DUE, "failed": State.FAILED}
    for word, state in words.items():
        assert f"{teachers[state]} {word}" in told
    live = {path for path, case in cases.items() if case.state.is_live}
    assert {directory.path for directory in without_end(study.directories())} == live
    jobs = re.findall(r"^jobs +(\d+) (.*)$", said, re.MULTILINE)
    gone = sum(case.state.is_live and not case.lives for case in CASES)
    assert {words.split(":")[0]: int(n) for n, words in jobs} == {
        "running": len(live) - gone,
        "not running any more": gone,
    }


def test_clean_removes_checkpoints_of_what_has_ended(study: RecordedStudy, cases: dict[Path, Case]) -> None:
    for path in cases:
        TrialDir(path).checkpoint.touch()
    done = {path for path, case in cases.items() if case.state in (State.FINISHED, State.SUPERSEDED)}
    assert {path.parent for path in unneeded(study) if path.name == "checkpoint.pt"} == done


def test_the_frames_hold_it(runs: Runs, cases: dict[Path, Case]) -> None:
    held = {runs.root / line["directory"]: line["status"] for line in runs.trials.to_dict("records")}
    assert held == {path: case.word for path, case in cases.items()}


def test_tables_and_figures_use_it(runs: Runs, cases: dict[Path, Case]) -> None:
    (row,) = collect(runs, "states").rows
    teachers = runs.trials[runs.trials["kind"] == "teacher"]
    frames = {"tuning": row.tuning, "confirm": row.final_runs, "teacher": teachers}
    over = {runs.root / directory for frame in frames.values() for directory in frame["directory"][ended(frame)]}
    counting = {path: case for path, case in cases.items() if not case.superseded}
    assert over == {path for path, case in counting.items() if case.state in (State.FAILED, State.FINISHED)}
    (section,) = table(runs, "states").sections
    assert section.rows[-1].status == f"final runs 0/{states_of('confirm').total()}"
    tuning = states_of("tuning")
    assert len(tuning_data(runs, row).trials) == tuning[State.FAILED] + tuning[State.FINISHED]


def test_doctor_reports_it(runs: Runs, cases: dict[Path, Case]) -> None:
    found = examine(runs)
    failed = {finding.text.split(":")[0] for finding in found.findings if finding.kind == "failed"}
    assert {runs.root / name for name in failed} == {p for p, case in cases.items() if case.state is State.FAILED}
    told = [re.match(r"trials that are (to be retried|\w+).*: (\d+) \(", f.text) for f in found.findings]
    unfinished: Counter[str] = Counter()
    for match in filter(None, told):
        unfinished[match[1].replace("to be retried", State.RETRY_DUE)] += int(match[2])
    states = Counter(case.state for case in CASES)
    assert unfinished == {state: states[state] for state in State if state.is_due or state.is_live}
    assert not {UNFINISHED, "remark"} & {finding.kind for finding in found.problems}


def test_an_end_that_the_controller_has_not_recorded_is_watched_by_it_and_is_an_end_for_others(tmp_path: Path) -> None:
    directory = TrialDir(tmp_path / "rows" / "r" / "trials" / "0")
    directory.path.mkdir(parents=True)
    record_submission(directory, 1, submitted=10.0)
    record_run(directory, 1, started=10.0, end="error")
    write_text(directory.attempt, "1\n")
    assert (decide(directory, ""), trial_state(directory)) == (State.RUNNING, State.RETRY_DUE)
