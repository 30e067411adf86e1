"""A forecast agrees with the table for the study as it is, and a simulated study of the size it names has its power."""

import json
import math

import numpy as np
import pytest
from roots import Lab
from test_replicated_tables import FOLDS, outputs

from analysis import load, table
from analysis.__main__ import main
from analysis.loading.study_rows import collect
from analysis.stats.design import ReplicateSpread, SeedSpread
from analysis.stats.paired import Replicated, paired
from analysis.tables.power_forecast import Forecast, forecast
from mmkd.records import SplitRecord, store_split


def study(lab: Lab, *, drawn: bool, replicates: int = 8) -> None:
    """Three rows; with `drawn` splits each replicate tests two of eight groups."""
    rng = np.random.default_rng(2)
    parts = {
        part: {f"g{group}": (f"{group}",) for group in groups}
        for part, groups in (("train", range(6)), ("valid", ()), ("test", (6, 7)))
    }
    split = SplitRecord(scheme="group-folds", parts=parts)
    store_split(lab.root, split)
    for number, fold in enumerate(FOLDS[:replicates]):
        for name, above in (("none", 0.0), ("good", 0.1), ("same", 0.0)):
            groups = fold if drawn else tuple(range(8))
            found = [outputs(groups, 0.6 + above, rng) for _ in range(2)]
            lab.replicate(name, number, found, split=split.digest if drawn else "")
    lab.study(control="none")


def made(lab: Lab, **options: float) -> Forecast:
    runs = load(lab.path, cache=False)
    found = forecast(runs, collect(runs, "demo"), **options)
    assert found is not None
    return found


@pytest.mark.parametrize("drawn", [False, True])
def test_for_the_study_as_it_is_the_forecast_is_the_tables(lab: Lab, drawn: bool) -> None:
    study(lab, drawn=drawn)
    note = next(n for n in table(load(lab.path, cache=False), "demo").notes if n.startswith("minimum detectable"))
    size = made(lab).sizes[0]
    assert (size.replicates, size.seeds) == (8, 2)
    assert size.detectable == pytest.approx(float(note.split(": ")[1].split(" points")[0]), rel=0.05)


def test_costs_are_those_of_the_runs_times_the_size(lab: Lab) -> None:
    study(lab, drawn=False)
    found = made(lab)
    assert found.unit == "minutes"
    assert found.sizes[0].cost == pytest.approx(3 * 8 * (2 + 2) * 10 / 60)
    assert found.sizes[1].cost == pytest.approx(2 * found.sizes[0].cost)
    assert made(lab, rows=6).sizes[0].cost == pytest.approx(2 * found.sizes[0].cost)
    assert made(lab, rows=6).comparisons == 5


def test_a_study_of_the_needed_size_has_the_power(lab: Lab) -> None:
    study(lab, drawn=False)
    found = made(lab, effect=1.5)
    assert isinstance(found.spread, ReplicateSpread)
    for option in found.needed:
        assert option.detectable <= 1.5
        assert option.power >= 0.8
        rng = np.random.default_rng(option.seeds)
        sd = found.spread.error(option.replicates, option.seeds) * option.replicates**0.5
        numbers, none = tuple(range(option.replicates)), np.zeros((option.replicates, 0))
        zero = Replicated(numbers, np.zeros(option.replicates), (), none, none)
        p = [
            paired(Replicated(numbers, 1.5 + sd * rng.standard_normal(option.replicates), (), none, none), zero).p
            for _ in range(2000)
        ]
        assert np.mean(np.array(p) < found.level) == pytest.approx(option.power, abs=0.03)
    assert len({option.seeds for option in found.needed}) == 4, "seeds trade against replicates"


def test_test_groups_bound_what_replicates_can_show() -> None:
    spread = ReplicateSpread(4.0, math.nan, 1.5, groups=8, tested=2.0, seeds=1, replicates=8, differences=3)
    assert spread.step == 4
    assert spread.needed(2.0, 1, 0.05) is None
    assert spread.bound(1, 0.05) == pytest.approx(spread.detectable(10_000, 1, 0.05))
    assert spread.bound(1, 0.05) > 2
    needed = spread.needed(5.0, 1, 0.05)
    assert needed is not None
    assert needed % 4 == 0
    assert spread.detectable(needed, 1, 0.05) <= 5.0 < spread.detectable(needed - 4, 1, 0.05)


def test_one_tuning_is_said_to_show_no_method(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("crd", [0.74, 0.75, 0.76])
    lab.study(control="none")
    spread = made(lab).spread
    assert isinstance(spread, SeedSpread)
    assert spread.variance == pytest.approx(1.0)
    assert main(["power", "--root", str(lab.path), "--effect", "3"]) == 0
    said = capsys.readouterr().out
    assert "nothing about another tuning" in said
    assert "needed for 3 points" in said


def test_the_command_writes_json_and_refuses_a_study_that_shows_nothing(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    study(lab, drawn=False)
    assert main(["power", "--root", str(lab.path), "--format", "json", "--rows", "15"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"] == 14
    lab.rows = []
    lab.row("alone", [0.7])
    lab.study("short", control="alone")
    assert main(["power", "--root", str(lab.path), "--study", "short"]) == 2
    assert "the spread is not known; launch it with --replicates" in capsys.readouterr().err


def test_where_each_group_was_tested_once_the_groups_part_is_called_unknown(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    study(lab, drawn=True, replicates=4)
    found = made(lab)
    assert isinstance(found.spread, ReplicateSpread)
    assert math.isnan(found.spread.group)
    note = next(n for n in table(load(lab.path, cache=False), "demo").notes if n.startswith("minimum detectable"))
    assert found.sizes[0].detectable == pytest.approx(float(note.split(": ")[1].split(" points")[0]), rel=0.05)
    assert found.sizes[1].detectable < found.sizes[0].detectable
    assert main(["power", "--root", str(lab.path)]) == 0
    assert "each of the 8 groups was tested once" in capsys.readouterr().out
