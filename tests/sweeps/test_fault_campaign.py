"""The short form of faults.py on real processes; and its checks, each on an invariant broken on purpose."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import h5py
import pytest
from controlled import rows_of, run
from fakes import FakeBackend
from tiny_study import STUDY

from mmkd.attempts import record_submission
from mmkd.files import write_text
from mmkd.finished import describe, write_finished
from mmkd.result_file import read_result, write_result
from mmkd.rundir import Root, TrialDir

HERE = Path(__file__).parents[1] / "campaigns"
sys.path.append(str(HERE))

from fault_checks import CHANGED, DOUBLED, LEFT, LOST, check  # noqa: E402
from fault_kinds import ON_SLURM  # noqa: E402
from faults import Campaign, Finding, Hit, Outcome, plan  # noqa: E402

FAULTS, SEED = 5, 2
KINDS = ("trial-killed", "controller-killed", "result-flipped", "torn-lines")
"""What finds something to hit in a study of a few seconds; the long form has all kinds."""


def campaign(folder: Path, faults: int) -> subprocess.CompletedProcess[str]:
    only = [part for kind in KINDS for part in ("--only", kind)]
    where = ("--folder", str(folder), "--variant", "brief", "--seed", str(SEED), "--faults", str(faults))
    command = [sys.executable, str(HERE / "faults.py"), *where, *only]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def studies(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "campaign.jsonl").read_text().splitlines()]


def test_a_short_campaign_loses_nothing_doubles_nothing_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    done = campaign(tmp_path, FAULTS)
    assert done.returncode == 0, done.stdout + done.stderr
    first = studies(tmp_path)
    assert sum(len(study["hits"]) for study in first) == FAULTS
    assert [study["wrong"] for study in first] == [[]] * len(first)
    assert list(tmp_path.glob("study-*")) == [], "what is well is removed"
    again = campaign(tmp_path, FAULTS)
    assert again.returncode == 0
    assert studies(tmp_path) == first, "it was done"


def test_the_seed_decides_the_faults_and_all_kinds_come_equally_often() -> None:
    studies = list(islice(plan(3, list(ON_SLURM), 5), 2 * len(ON_SLURM)))
    assert studies == list(islice(plan(3, list(ON_SLURM), 5), 2 * len(ON_SLURM)))
    assert studies != list(islice(plan(4, list(ON_SLURM), 5), 2 * len(ON_SLURM)))
    kinds = [kind for _, faults in studies for kind, _ in faults]
    assert {kinds.count(kind) for kind in ON_SLURM} == {10}


def test_a_campaign_knows_its_own_studies_whatever_a_kill_left_of_the_last_line(tmp_path: Path) -> None:
    kept = Campaign(tmp_path, 1, "local", ("brief",), Quiet())  # type: ignore[arg-type]
    other = Campaign(tmp_path, 2, "local", ("brief",), Quiet())  # type: ignore[arg-type]
    outcome = Outcome(0, 1, "local", "brief", (Hit("torn-lines", "", "3 files", 0.5),), (Finding(LOST, "it"),), 2, 1.5)
    kept._add(outcome)
    with kept.record.open("a") as file:
        file.write('{"study": 1, "see')
    kept._add(Outcome(1, 1, "local", "brief", (), (), 1, 1.0))
    assert [o.study for o in kept.outcomes()] == [0, 1]
    assert kept.outcomes()[0] == outcome
    assert other.outcomes() == []


class Quiet:
    def print(self, *_: object, **__: object) -> None: ...


# --- invariants, each broken on purpose


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    study = folder / "tiny.toml"
    study.write_text(f'data = "{tiny_data}"\n{STUDY}')
    run(list(rows_of(study, folder).values()), Root(folder / "runs"), FakeBackend())
    return folder / "runs"


@pytest.fixture
def root(undisturbed: Path, tmp_path: Path) -> Path:
    shutil.copytree(undisturbed, tmp_path / "runs")
    for row in Root(tmp_path / "runs").rows():  # a copy's files are others than those that its lines were made from
        write_finished(row, [describe(run)[0] for run in (*row.trials(), *row.final_runs())])
    assert check(tmp_path / "runs", undisturbed) == []
    return tmp_path / "runs"


def trial(root: Path) -> TrialDir:
    return Root(root).rows()[0].trial(1)


def journal(root: Path) -> Path:
    return Root(root).rows()[0].journal


def reports(root: Path) -> list[str]:
    return [line for line in journal(root).read_text().splitlines(keepends=True) if '"values":[' in line]


def a_trial_is_told_twice(root: Path) -> None:
    journal(root).write_text(journal(root).read_text() + reports(root)[0])


def a_trial_is_not_told(root: Path) -> None:
    journal(root).write_text(journal(root).read_text().replace(reports(root)[1], ""))


def a_trial_is_told_another_value(root: Path) -> None:
    line = reports(root)[1]
    entry = json.loads(line)
    entry["values"] = [entry["values"][0] + 1e-12]
    journal(root).write_text(journal(root).read_text().replace(line, json.dumps(entry) + "\n"))


def a_result_is_gone(root: Path) -> None:
    trial(root).result.unlink()


def a_teacher_is_gone(root: Path) -> None:
    shutil.rmtree(Root(root).teachers()[0].path)


def a_trial_is_there_twice(root: Path) -> None:
    shutil.copytree(trial(root).path, trial(root).path.with_name("7"))


def a_number_differs_in_its_last_digit(root: Path) -> None:
    result = read_result(trial(root).result)
    valid = {**result.metrics["valid"], "accuracy": result.metrics["valid"]["accuracy"] + 1e-15}
    with h5py.File(trial(root).result) as file:
        assert file["metrics/valid"].attrs["accuracy"] != valid["accuracy"]
    write_result(trial(root), type(result)(**{**vars(result), "metrics": {**result.metrics, "valid": valid}}))


def two_attempts_were_complete(root: Path) -> None:
    record_submission(trial(root), 2, attempt=2, end="complete")


def an_attempts_end_is_not_noted(root: Path) -> None:
    record_submission(trial(root), 2, attempt=2)


def an_epoch_is_missing(root: Path) -> None:
    write_text(trial(root).metrics, '{"epoch": 1}\n{"epoch": 3}\n')


def a_lock_is_left(root: Path) -> None:
    trial(root).lock.touch()


def a_temporary_file_is_left(root: Path) -> None:
    (trial(root).attempts / ".tmp-0123456789ab-1.json").touch()


def a_checkpoint_is_left(root: Path) -> None:
    trial(root).checkpoint.touch()


BROKEN: dict[Callable[[Path], None], str] = {
    a_trial_is_told_twice: DOUBLED,
    a_trial_is_not_told: LOST,
    a_trial_is_told_another_value: CHANGED,
    a_result_is_gone: LOST,
    a_teacher_is_gone: LOST,
    a_trial_is_there_twice: DOUBLED,
    a_number_differs_in_its_last_digit: CHANGED,
    two_attempts_were_complete: DOUBLED,
    an_attempts_end_is_not_noted: LEFT,
    an_epoch_is_missing: CHANGED,
    a_lock_is_left: LEFT,
    a_temporary_file_is_left: LEFT,
    a_checkpoint_is_left: LEFT,
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_what_is_broken_on_purpose_is_caught(breaks: Callable[[Path], None], root: Path, undisturbed: Path) -> None:
    breaks(root)
    assert BROKEN[breaks] in {finding.kind for finding in check(root, undisturbed)}


@pytest.fixture
def orphan(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a trial of the root, and does not end."""
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)", "mmkd.trial", str(trial(root).path)]
    process = subprocess.Popen(sleeps)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_lives_on_is_caught(orphan: subprocess.Popen[bytes], root: Path, undisturbed: Path) -> None:
    (found,) = check(root, undisturbed)
    assert found == Finding(LEFT, f"process {orphan.pid} lives: {root}")
    orphan.kill()
    orphan.wait()
    assert check(root, undisturbed) == []
