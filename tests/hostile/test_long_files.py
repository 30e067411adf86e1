"""A log or a metrics file may be of any length: what watches a study reads its end alone."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from refusals import run

from mmkd.metrics_log import last_metrics, read_metrics
from mmkd.rundir import TrialDir
from slurm.monitor import main as monitor
from slurm.monitoring.rows import tail_log
from sweeps.controller.last_words import last_words

MIB = 2**20


def lines(first: int, last: int) -> str:
    return "".join(json.dumps({"epoch": n, "valid_accuracy": 0.5}) + "\n" for n in range(first, last + 1))


@pytest.mark.parametrize("torn", ["", "{", '{"epoch": 1', "5\n", "\n", '"', "\0\0\0", "[" * 10_000])
def test_the_last_epoch_is_found_whatever_a_kill_left_behind_it(tmp_path: Path, torn: str) -> None:
    place = TrialDir(tmp_path)
    assert last_metrics(place) == {}
    place.metrics.write_text(lines(1, 2000) + torn)
    assert last_metrics(place) == {"epoch": 2000, "valid_accuracy": 0.5}
    assert [line["epoch"] for line in read_metrics(place)] == list(range(1, 2001))


def test_a_log_of_a_gigabyte_costs_what_its_end_costs(tmp_path: Path) -> None:
    place = TrialDir(tmp_path / "rows" / "r" / "trials" / "0")
    place.log(1).parent.mkdir(parents=True)
    place.attempt.write_text("1\n")
    with place.log(1).open("wb") as file:
        file.truncate(1024 * MIB)  # a hole, which takes no disk
        file.seek(0, 2)
        file.write(b"\nalmost\nthe last line\n")
    tracemalloc.start()
    assert tail_log(place).lines[-2:] == ("almost", "the last line")
    assert last_words(place.log(1), 1) == "the last line"
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


def test_the_monitor_shows_a_running_trial_of_any_length(small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = TrialDir(small_root / "rows" / "kd-00000000" / "trials" / "1")
    place.attempts.mkdir(parents=True)
    place.config.write_text((small_root / "rows" / "kd-00000000" / "trials" / "0" / "config.json").read_text())
    place.attempt.write_text("1\n")
    place.job_record(1).write_text(json.dumps({"started": 1.0, "host": "node1"}))
    place.controller_record(1).write_text(json.dumps({"backend": "slurm", "job": "1", "name": "x", "submitted": 1.0}))
    place.metrics.write_text(lines(1, 50_000))
    assert run(monitor, "--root", small_root, "--once") == 0
    assert "50000" in capsys.readouterr().out.replace(",", "")
