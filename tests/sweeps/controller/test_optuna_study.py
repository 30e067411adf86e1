"""The Optuna study of a row: reproducible, healed, never reported to twice, never written without the lock."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch
from controlled import rows_of

from mmkd.config import derived_seed
from mmkd.lock import FileLock, LockLost
from sweeps.controller.journal import heal_journal
from sweeps.controller.optuna_study import Tuning
from sweeps.rows import Row


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    row = rows_of(study_file, tmp_path)["crd"]
    row.directory.path.mkdir(parents=True)
    return row


@pytest.fixture
def lock(row: Row) -> Iterator[FileLock]:
    with FileLock(row.directory.lock) as lock:
        yield lock


def test_trial_0_is_the_default_and_the_others_depend_on_the_number_alone(row: Row, lock: FileLock) -> None:
    first = Tuning(row, lock, parallel=2)
    sampled = [first.sample() for _ in range(4)]
    assert sampled[0] == (0, row.default())
    row.directory.journal.unlink()
    again = Tuning(row, lock, parallel=2)
    for number, (expected, parameters) in enumerate(sampled):
        assert again.sample() == (expected, parameters) == (number, parameters)
        again.report(number, value=float(number))  # the random sampler does not look at what was reported


def test_a_relaunch_goes_on_with_the_next_trial(row: Row, lock: FileLock) -> None:
    whole = Tuning(row, lock, parallel=2)
    expected = [whole.sample() for _ in range(4)]
    row.directory.journal.unlink()
    cut = [Tuning(row, lock, parallel=2).sample() for _ in range(4)]
    assert cut == expected


def test_each_parameter_of_a_random_trial_is_drawn_as_optunas_random_sampler_draws_it(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    tuning.sample()
    _, parameters = tuning.sample()
    assert len(parameters) == 4
    for name, value in parameters.items():
        sampler = optuna.samplers.RandomSampler(seed=derived_seed("sampler", row.replicate, 1, name))
        study = optuna.create_study(sampler=sampler)
        assert study.ask({name: tuning.distributions[name]}).params == {name: value}


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_rows_that_share_a_range_are_first_tried_at_the_same_values_of_it(
    study_file: Path, tmp_path: Path, sampler: str
) -> None:
    rows = rows_of(study_file, tmp_path, f"defaults.sampler={sampler}", "defaults.trials=6")
    tried: dict[str, list[float]] = {}
    for name in ("no_kd", "crd"):
        rows[name].directory.path.mkdir(parents=True)
        with FileLock(rows[name].directory.lock) as lock:
            tuning = Tuning(rows[name], lock, parallel=1)
            # The adaptive samplers begin with random trials.
            tried[name] = [tuning.sample()[1]["learning_rate"] for _ in range(5 if sampler == "random" else 2)]
    assert tried["no_kd"] == tried["crd"]
    assert len(set(tried["crd"])) == len(tried["crd"])


@pytest.mark.parametrize("lines", [1, 2])
def test_an_asking_that_a_kill_cut_short_is_asked_again_with_the_same_parameters(
    row: Row, lock: FileLock, lines: int
) -> None:
    whole = Tuning(row, lock, parallel=2)
    expected = [whole.sample(), whole.sample()]
    written = row.directory.journal.read_bytes().splitlines(keepends=True)
    assert len(written) == 3, "the study, and a line a trial"
    row.directory.journal.write_bytes(b"".join(written[:lines]) + written[lines][:-3])
    resumed = Tuning(row, lock, parallel=2)
    assert [(t.number, t.params) for t in resumed.trials()] == expected[: lines - 1]
    assert [resumed.sample() for _ in range(3 - lines)] == expected[lines - 1 :]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_samplers_asking_that_a_kill_cut_short_is_completed_within_range(
    study_file: Path, tmp_path: Path, sampler: str
) -> None:
    row = rows_of(study_file, tmp_path, f"defaults.sampler={sampler}")["crd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        whole = Tuning(row, lock, parallel=1)
        sampled = [whole.sample(), whole.sample()]
        written = row.directory.journal.read_bytes().splitlines(keepends=True)
        assert len(written) > 5, "a line a parameter"
        for lines in range(3, len(written)):
            row.directory.journal.write_bytes(b"".join(written[:lines]) + written[lines][:-3])
            resumed = Tuning(row, lock, parallel=1)
            parameters = [resumed.complete(t) for t in resumed.trials()]
            assert parameters[0] == sampled[0][1]
            assert all(r.low <= parameters[1][name] <= r.high for name, r in row.ranges.items())
            assert resumed.sampled == 2


def test_what_is_known_of_the_trials_survives_a_relaunch(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    for value in (0.7, None, 0.3, 0.5, 0.3):
        tuning.report(tuning.sample()[0], value)
    tuning.sample()
    tuning.retry(1)
    relaunched = Tuning(row, lock, parallel=2)
    for known in (tuning, relaunched):
        winner = known.winner
        assert winner is not None
        assert (known.sampled, known.failed(), winner.number, winner.value) == (5, [], 2, 0.3)
    assert tuning.sample()[0] == 6
    failed, again = (tuning.trials()[number] for number in (1, 6))
    assert again.params == failed.params
    assert tuning.sampled == Tuning(row, lock, parallel=2).sampled == 6


def test_no_round_of_a_row_with_the_random_sampler_reads_all_trials(
    row: Row, lock: FileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning(row, lock, parallel=2)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("all trials were read: that grows with them")

    monkeypatch.setattr(tuning.study._storage, "get_all_trials", refuse)
    with pytest.raises(AssertionError, match="all trials were read"):
        tuning.trials()
    for value in (0.5, 0.2, None):
        tuning.report(tuning.sample()[0], value)
    winner = tuning.winner
    assert winner is not None
    assert (winner.number, tuning.sampled) == (1, 3)


def test_a_second_telling_changes_nothing(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    number, _ = tuning.sample()
    tuning.report(number, 0.5)
    tuning.report(number, 0.1)
    assert [t.value for t in tuning.trials()] == [0.5]


def test_a_failed_trial_is_told_as_failed_and_wins_nothing(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    for value in (None, 0.7, 0.3, 0.3):
        tuning.report(tuning.sample()[0], value)
    winner = tuning.winner
    assert winner is not None
    assert winner.number == 2, "the earliest of equals"
    assert [t.state.name for t in tuning.trials()] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_a_pruned_trial_is_told_with_what_was_reported_and_wins_nothing(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path, "defaults.pruner='median'")["no_kd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        tuning.report(tuning.sample()[0], 0.6)
        number, _ = tuning.sample()
        tuning.should_prune(number, [0.9, 0.5])
        tuning.report(number, 0.4, pruned=True)
        assert [(t.state.name, t.value) for t in tuning.trials()] == [("COMPLETE", 0.6), ("PRUNED", 0.5)]
        winner = tuning.winner
    assert winner is not None
    assert winner.number == 0


def test_more_is_better_where_the_selection_is_accuracy(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path, "defaults.selection=accuracy")["crd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        for value in (0.3, 0.7, 0.5):
            tuning.report(tuning.sample()[0], value)
        winner = tuning.winner
    assert winner is not None
    assert winner.number == 1


def test_the_journal_is_not_written_once_the_lock_is_lost(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    row.directory.lock.unlink()
    with pytest.raises(LockLost):
        tuning.sample()


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "auto"])
def test_every_sampler_stays_in_range_and_repeats_nothing(study_file: Path, tmp_path: Path, sampler: str) -> None:
    row = rows_of(study_file, tmp_path, f"defaults.sampler={sampler}", "defaults.trials=8")["no_kd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        for _ in range(8):
            number, parameters = tuning.sample()
            tuning.report(number, -parameters["learning_rate"])  # the best is at the edge
        rates = [t.params["learning_rate"] for t in tuning.trials()]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    if sampler != "cmaes":
        assert len(set(rates)) == 8


@pytest.mark.parametrize("sampler", ["gp", "auto"])
def test_after_so_many_trials_that_a_gaussian_process_is_slow_tpe_proposes(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr("sweeps.controller.optuna_study.GP_TRIALS", 3)
    row = rows_of(study_file, tmp_path, f"defaults.sampler={sampler}", "defaults.trials=5")["no_kd"]
    row.directory.path.mkdir(parents=True)
    samplers = []
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        for _ in range(5):
            number, parameters = tuning.sample()
            tuning.report(number, parameters["learning_rate"])
            samplers.append(isinstance(tuning.study.sampler, optuna.samplers.GPSampler))
    assert samplers[1:] == [True, True, False, False]


def test_a_gaussian_process_takes_one_core_and_leaves_torch_as_it_was(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def propose(*arguments: object) -> dict[str, float]:
        seen.append(torch.get_num_threads())
        return {}

    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_relative", propose)
    row = rows_of(study_file, tmp_path, "defaults.sampler=gp")["no_kd"]
    row.directory.path.mkdir(parents=True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with FileLock(row.directory.lock) as lock:
            tuning = Tuning(row, lock, parallel=1)
            tuning.sample()
            tuning.sample()
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_optuna_opens_the_journal_as_it_is(row: Row, lock: FileLock) -> None:
    Tuning(row, lock, parallel=2).sample()
    backend = optuna.storages.journal.JournalFileBackend(str(row.directory.journal))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    assert study.trials[0].params == row.default()


def test_healing_cuts_a_torn_line_and_nothing_else(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    journal.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    heal_journal(journal)
    assert journal.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    heal_journal(journal)
    assert journal.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
