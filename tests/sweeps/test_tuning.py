"""The Optuna study of a row: reproducible, healed, never told twice, never written without the lock."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from test_study import rows_of

from mmkd.lock import FileLock, LockLost
from sweeps.planning import Row
from sweeps.tuning import Tuning, heal_journal


@pytest.fixture
def row(study_file: Path, tmp_path: Path) -> Row:
    row = rows_of(study_file, tmp_path)["crd"]
    row.directory.path.mkdir(parents=True)
    return row


@pytest.fixture
def lock(row: Row) -> Iterator[FileLock]:
    with FileLock(row.directory.lock) as lock:
        yield lock


def test_trial_0_is_the_default_and_the_others_depend_on_row_and_number_alone(row: Row, lock: FileLock) -> None:
    first = Tuning(row, lock, parallel=2)
    asked = [first.ask() for _ in range(4)]
    assert asked[0] == (0, row.default())
    row.directory.journal.unlink()
    again = Tuning(row, lock, parallel=2)
    for number, (expected, parameters) in enumerate(asked):
        assert again.ask() == (expected, parameters) == (number, parameters)
        again.tell(number, value=float(number))  # the random sampler does not look at what was told


def test_a_relaunch_goes_on_with_the_next_trial(row: Row, lock: FileLock) -> None:
    whole = Tuning(row, lock, parallel=2)
    expected = [whole.ask() for _ in range(4)]
    row.directory.journal.unlink()
    cut = [Tuning(row, lock, parallel=2).ask() for _ in range(4)]
    assert cut == expected


@pytest.mark.parametrize("lines", range(2, 12))
def test_an_asking_that_a_kill_cut_short_is_completed_with_the_same_parameters(
    row: Row, lock: FileLock, lines: int
) -> None:
    whole = Tuning(row, lock, parallel=2)
    expected = [whole.ask(), whole.ask()]
    journal = row.directory.journal
    written = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(written[:lines]) + written[min(lines, len(written) - 1)][:-3])
    resumed = Tuning(row, lock, parallel=2)
    running = {t.number: resumed.complete(t) for t in resumed.trials()}
    while len(resumed.trials()) < 2:
        number, parameters = resumed.ask()
        running[number] = parameters
    assert sorted(running.items()) == expected


def test_a_second_telling_changes_nothing(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    number, _ = tuning.ask()
    tuning.tell(number, 0.5)
    tuning.tell(number, 0.1)
    assert [t.value for t in tuning.trials()] == [0.5]


def test_a_failed_trial_is_told_as_failed_and_wins_nothing(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    for value in (None, 0.7, 0.3, 0.3):
        tuning.tell(tuning.ask()[0], value)
    winner = tuning.winner()
    assert winner is not None
    assert winner.number == 2, "the earliest of equals"
    assert [t.state.name for t in tuning.trials()] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_more_is_better_where_the_selection_is_accuracy(study_file: Path, tmp_path: Path) -> None:
    row = rows_of(study_file, tmp_path, "defaults.selection=accuracy")["crd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        for value in (0.3, 0.7, 0.5):
            tuning.tell(tuning.ask()[0], value)
        winner = tuning.winner()
    assert winner is not None
    assert winner.number == 1


def test_the_journal_is_not_written_once_the_lock_is_lost(row: Row, lock: FileLock) -> None:
    tuning = Tuning(row, lock, parallel=2)
    row.directory.lock.unlink()
    with pytest.raises(LockLost):
        tuning.ask()


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "auto"])
def test_every_sampler_stays_in_range_and_repeats_nothing(study_file: Path, tmp_path: Path, sampler: str) -> None:
    row = rows_of(study_file, tmp_path, f"defaults.sampler={sampler}", "defaults.trials=8")["no_kd"]
    row.directory.path.mkdir(parents=True)
    with FileLock(row.directory.lock) as lock:
        tuning = Tuning(row, lock, parallel=1)
        for _ in range(8):
            number, parameters = tuning.ask()
            tuning.tell(number, -parameters["learning_rate"])  # the best is at the edge
        rates = [t.params["learning_rate"] for t in tuning.trials()]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    if sampler != "cmaes":
        assert len(set(rates)) == 8


def test_optuna_opens_the_journal_as_it_is(row: Row, lock: FileLock) -> None:
    Tuning(row, lock, parallel=2).ask()
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
