"""Finalists: the best trials of a row run again on more seeds, and the best mean wins."""

from collections import Counter
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from controlled import rows_of
from fakes import FakeBackend, fake_result
from launched import after, launched, planned

import analysis
from mmkd.config import StudentConfig, from_json
from mmkd.failures import Failure
from mmkd.files import read_json
from mmkd.records import WinnerRecord, read_record
from mmkd.result_file import Status, read_result, write_result
from mmkd.rundir import TrialDir
from slurm.backend import Job
from sweeps.actions.dry_run import show_plan
from sweeps.actions.estimate import left_of
from sweeps.actions.status import show_status
from sweeps.controller.finalists import Finalist, runs_due, winner_of
from sweeps.controller.stopping import Stop
from sweeps.launched_study import RecordedStudy
from sweeps.study_file import load_study, parse_override

FINALISTS = ("finalists.best=2", "finalists.seeds=2", "defaults.trials=4")
FOUR_MORE = 2 * 2


class Noisy(FakeBackend):
    """Losses depend on the seed, too: the trial that looks best is lucky."""

    def _end(self, job: Job) -> None:
        directory, attempt = TrialDir(Path(job.command[3])), int(job.command[5])
        if self.fails(job, attempt) is not None:
            return super()._end(job)
        fake_result(directory)
        config = from_json(read_json(directory.config), directory.config)
        if isinstance(config, StudentConfig) and config.seed % 10_000 != 0:
            result = read_result(directory.result)
            for metrics in result.metrics.values():
                metrics["loss"] = 10 - metrics["loss"]
            directory.result.unlink()
            write_result(directory, result)
        return None


def winners(study: RecordedStudy) -> dict[str, WinnerRecord]:
    return {row.title: read_record(row.directory.winner, WinnerRecord) for row in study.rows}


def tuned(study: RecordedStudy, row: str = "no_kd") -> dict[int, tuple[int, float, float]]:
    """Seed, learning rate and validation loss of a row's tuning trials, by number."""
    found = {}
    for run in next(one for one in study.rows if one.title == row).directory.trials():
        config = from_json(read_json(run.config), run.config)
        loss = read_result(run.result).metrics["valid"]["loss"]
        found[int(run.path.name)] = (config.seed, config.training.learning_rate, loss)
    return found


def trial(number: int, value: float | None, finalist: Finalist | None = None) -> optuna.trial.FrozenTrial:
    state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
    made = optuna.trial.create_trial(
        state=state, value=value, user_attrs={"finalist": list(finalist)} if finalist else {}
    )
    made.number = number
    return made


# --- the choice


def test_the_best_mean_over_all_runs_wins() -> None:
    trials = [trial(0, 0.5), trial(1, 0.3), trial(2, 0.4), trial(3, 0.9)]
    assert runs_due(trials, "loss", 2, 2) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert runs_due(trials, "accuracy", 2, 1) == [(3, 1), (0, 1)]
    trials += [trial(4 + n, value, finalist) for n, (finalist, value) in enumerate(
        {Finalist(1, 1): 0.9, Finalist(1, 2): 0.6, Finalist(2, 1): 0.5, Finalist(2, 2): 0.3}.items()
    )]  # fmt: skip
    assert runs_due(trials, "loss", 2, 2) == []
    winner = winner_of(trials, "loss", 2, 2)
    assert winner is not None
    assert (winner[0].number, winner[1]) == (2, pytest.approx(0.4))


def test_a_finalist_with_a_failed_run_does_not_win_against_a_complete_one() -> None:
    trials = [trial(0, 0.3), trial(1, 0.4), trial(2, None, Finalist(0, 1)), trial(3, 0.8, Finalist(1, 1))]
    winner = winner_of(trials, "loss", 2, 1)
    assert winner is not None
    assert winner[0].number == 1
    both = winner_of([*trials[:3], trial(3, None, Finalist(1, 1))], "loss", 2, 1)
    assert both is not None
    assert (both[0].number, both[1]) == (0, 0.3)
    assert winner_of([trial(0, None)], "loss", 2, 1) is None


# --- a launch


def test_finalists_belong_to_the_identity_if_there_are_any(study_file: Path, tmp_path: Path) -> None:
    usual, with_them = rows_of(study_file, tmp_path), rows_of(study_file, tmp_path, *FINALISTS)
    assert "finalists" not in usual["no_kd"].identity
    assert all(usual[name].digest != with_them[name].digest for name in usual)
    more = rows_of(study_file, tmp_path, *FINALISTS[:2], "defaults.trials=9")
    assert {name: row.digest for name, row in more.items()} == {name: row.digest for name, row in with_them.items()}


def test_each_row_runs_its_best_trials_again_and_reads_no_test_data(study_file: Path, tmp_path: Path) -> None:
    backend = Noisy()
    study = launched(study_file, tmp_path, *FINALISTS, backend=backend)
    kinds = Counter(Path(job.command[3]).parent.name for job in backend.jobs)
    assert kinds["trials"] == 2 * (4 + FOUR_MORE)
    assert kinds["teachers"] == 3, "finalists have the teacher of tuning"
    for row in study.rows:
        trials = tuned(study, row.title)
        proposed, again = list(trials.values())[:4], list(trials.values())[4:]
        best = sorted(proposed, key=lambda found: found[2])[:2]
        assert [found[0] for found in proposed] == [0] * 4
        assert sorted((found[0], found[1]) for found in again) == sorted(
            (seed, found[1]) for seed in (9_998, 9_999) for found in best
        )
        for run in row.directory.trials():
            assert "test" not in read_result(run.result).metrics
        means = {rate: fmean(found[2] for found in trials.values() if found[1] == rate) for _, rate, _ in best}
        winner = winners(study)[row.title]
        assert winner.params["learning_rate"] == min(means, key=lambda rate: means[rate])
        assert winner.value == pytest.approx(min(means.values()))
        assert winner.params["learning_rate"] != best[0][1], "the one that looked best was lucky"
        assert winner.trials == 4 + FOUR_MORE


def test_a_study_that_is_stopped_anywhere_chooses_the_same_winner(study_file: Path, tmp_path: Path) -> None:
    whole = launched(study_file, tmp_path / "whole", *FINALISTS, backend=Noisy())
    for rounds in range(0, 30, 2):
        launched(study_file, tmp_path / "parts", *FINALISTS, backend=Noisy(), stop=after(rounds, Stop.WITH_JOBS))
    parts = launched(study_file, tmp_path / "parts", *FINALISTS, backend=Noisy())
    assert tuned(parts) == tuned(whole)
    assert {name: (won.trial, won.value) for name, won in winners(parts).items()} == {
        name: (won.trial, won.value) for name, won in winners(whole).items()
    }
    again = FakeBackend()
    launched(study_file, tmp_path / "parts", *FINALISTS, backend=again)
    assert again.jobs == []


def test_more_trials_run_new_finalists_again(study_file: Path, tmp_path: Path) -> None:
    launched(study_file, tmp_path, *FINALISTS, backend=Noisy())
    more = Noisy()
    study = launched(study_file, tmp_path, *FINALISTS[:2], "defaults.trials=12", backend=more)
    of_control = [job for job in more.jobs if "no_kd" in job.command[3] and "/trials/" in job.command[3]]
    assert 8 <= len(of_control) <= 8 + FOUR_MORE
    trials = tuned(study)
    best = sorted((found for found in trials.values() if found[0] == 0), key=lambda found: found[2])[:2]
    for _, rate, _ in best:
        assert sorted(found[0] for found in trials.values() if found[1] == rate) == [0, 9_998, 9_999]


def test_a_failed_run_of_a_finalist_is_not_tried_under_a_new_number(study_file: Path, tmp_path: Path) -> None:
    def fails(job: Job, attempt: int) -> Failure | None:
        return Failure.ERROR if job.command[3].endswith("/trials/4") else None

    study = launched(study_file, tmp_path, *FINALISTS, backend=Noisy(fails))
    assert all(won.trials == 4 + FOUR_MORE for won in winners(study).values())
    assert all(len(row.runs()) == 4 + FOUR_MORE + 2 for row in study.rows)


def test_the_budget_is_shown(study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = planned(study_file, tmp_path, *FINALISTS)
    spec = load_study(study_file, [parse_override(text) for text in FINALISTS])
    show_plan(spec, rows, rows[0].root, "synthetic", "local", 2)
    assert (
        "4 trials (random sampler), 4 runs of the best 2 on more seeds; best by valid loss" in capsys.readouterr().out
    )
    assert [left_of(row).tuning for row in rows] == [8, 8]
    study = launched(study_file, tmp_path, *FINALISTS, backend=Noisy())
    assert [left_of(row).runs for row in rows] == [0, 0]
    show_status(study)
    assert "8/8" in capsys.readouterr().out
    table = analysis.table(analysis.load(study.root.path), "tiny")
    assert {row.cells["trials"].wanted for row in table.rows if row.kind == "student"} == {8}
    assert not [text for text in table.warnings if "winner" in text]


def test_the_table_warns_of_a_winner_that_is_not_the_best_finalist(study_file: Path, tmp_path: Path) -> None:
    study = launched(study_file, tmp_path, *FINALISTS, backend=Noisy())
    row = study.rows[0].directory
    for run in row.trials():
        result = read_result(run.result)
        assert result.status is Status.COMPLETE
        if result.config["seed"]:
            result.metrics["valid"]["loss"] = 20 - result.metrics["valid"]["loss"]
            run.result.unlink()
            write_result(run, result)
    row.finished.unlink()
    table = analysis.table(analysis.load(study.root.path, cache=False), "tiny")
    assert [text for text in table.warnings if "the winner is trial" in text]
