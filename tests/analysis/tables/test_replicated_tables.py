"""A study's rows over replicates: one row per name, the unit is the replicate, and every number can be recomputed."""

import csv
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from roots import Lab
from scipy import stats

from analysis import compare, examine, load, per_class, table, to_csv, to_text
from analysis.loading.study_rows import collect
from analysis.tables.checks import check_rows
from analysis.tables.model import Table
from mmkd.result_file import Predictions

GROUPS, PER_GROUP = 8, 25
FOLDS = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 4), (1, 5), (2, 6), (3, 7)]
"""Test groups of each replicate: two partitions."""


def outputs(groups: tuple[int, ...], accuracy: float, rng: np.random.Generator) -> Predictions:
    """Predictions for the samples of these groups, the first with an accuracy .1 above the last."""
    labels = np.tile(np.arange(PER_GROUP) % 3, len(groups))
    ids = [f"g{group}-{sample}" for group in groups for sample in range(PER_GROUP)]
    chance = np.repeat(np.linspace(accuracy + 0.05, accuracy - 0.05, len(groups)), PER_GROUP)
    shown = np.where(rng.random(len(labels)) < chance, labels, (labels + 1) % 3)
    names = [f"g{group}" for group in groups for _ in range(PER_GROUP)]
    return Predictions(4 * np.eye(3, dtype=np.float32)[shown], labels, ids, groups=names)


def study(lab: Lab, *, drawn: bool) -> str:
    """Eight replicates of three rows, two final runs each; with `drawn` splits each tests other groups."""
    rng = np.random.default_rng(1)
    for number, fold in enumerate(FOLDS):
        level = rng.normal(0.6, 0.08)
        for name, above in (("none", 0.0), ("good", 0.15), ("same", 0.0)):
            groups = fold if drawn else tuple(range(GROUPS))
            found = [outputs(groups, level + above, rng) for _ in range(2)]
            lab.replicate(name, number, found, split=f"{number:02x}" * 32 if drawn else "")
    return lab.study(control="none")


@pytest.fixture(params=[True, False], ids=["group-folds", "file"])
def drawn(request: pytest.FixtureRequest, lab: Lab) -> bool:
    study(lab, drawn=bool(request.param))
    return bool(request.param)


def made(lab: Lab) -> Table:
    return table(load(lab.path, cache=False), "demo")


def by_hand(root: Path, name: str) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Of each replicate the runs' right samples and the samples' groups, from the result files alone."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for path in sorted(root.glob(f"rows/{name}-*/confirm/*/result.h5")):
        with h5py.File(path) as file:
            test = file["predictions/test"]
            right = test["logits"][()].argmax(1) == test["labels"][()]
            found.setdefault(int(path.parts[-4][-8:], 16), []).append((right, test["groups"].asstr()[()]))
    return found


def test_every_number_follows_from_the_result_files(lab: Lab, drawn: bool) -> None:
    rows = {row.name: row for row in made(lab).rows}
    control, names = by_hand(lab.path, "none"), [f"g{group}" for group in range(GROUPS)]
    p = {}
    for name in ("good", "same"):
        ours = by_hand(lab.path, name)
        values = np.array([[100 * np.mean([r.mean() for r, _ in of[k]]) for k in range(8)] for of in (ours, control)])
        d = values[0] - values[1]
        cell, difference = rows[name].cells["accuracy"], rows[name].cells["accuracy"].difference
        assert difference is not None
        assert (cell.value, cell.spread, cell.n) == (
            pytest.approx(values[0].mean()),
            pytest.approx(values[0].std(ddof=1)),
            8,
        )
        variance, freedom = d.var(ddof=1) / 8, 7
        if drawn:
            e = np.zeros((8, GROUPS))  # each group's part of the deviation of the mean difference
            for k in range(8):
                groups = ours[k][0][1]
                for g, group in enumerate(names):
                    mine = groups == group
                    if mine.any():
                        a, b = (np.mean([r[mine].mean() for r, _ in of[k]]) for of in (ours, control))
                        e[k, g] = mine.mean() * (100 * (a - b) - d.mean()) / 8
            by_group, by_cell = GROUPS / 7 * (e.sum(0) ** 2).sum(), 16 / 15 * (e**2).sum()
            assert 8 / 7 * (e.sum(1) ** 2).sum() == pytest.approx(variance)
            variance = max(variance + by_group - by_cell, variance, by_group)
        half = stats.t.ppf(0.975, freedom) * variance**0.5
        p[name] = 2 * stats.t.sf(abs(d.mean()) / variance**0.5, freedom)
        assert (difference.low, difference.high) == pytest.approx((d.mean() - half, d.mean() + half))
        assert difference.p == pytest.approx(p[name])
        assert difference.effect == pytest.approx(d.mean() / d.std(ddof=1))
        assert difference.correlation == pytest.approx(np.corrcoef(values)[0, 1])
    low, high = sorted(p, key=lambda name: p[name])
    corrected = {low: min(1, 2 * p[low]), high: max(min(1, 2 * p[low]), p[high])}
    for name, value in corrected.items():
        assert rows[name].cells["p"].value == pytest.approx(value)


def test_a_row_of_several_replicates_is_one_row(lab: Lab, drawn: bool) -> None:
    runs = load(lab.path, cache=False)
    result = made(lab)
    assert [(row.name, row.cells["seeds"].text, row.cells["trials"].text) for row in result.rows] == [
        (name, "8", "16") for name in ("none", "good", "same")
    ]
    assert result.subtitle == ""
    assert next(column.label for column in result.columns if column.key == "p") == "p (Holm)"
    assert [len(row.replicates) for row in collect(runs, "demo").rows] == [8, 8, 8]
    assert sorted(set(runs.trials["replicate"])) == sorted(set(runs.rows["replicate"])) == list(range(8))
    assert runs.rows["split"].notna().all() == drawn
    lines = per_class(runs, "demo")
    assert list(lines.groupby("row", sort=False)["replicates"].first()) == [8, 8, 8]
    assert not examine(runs).problems
    assert next(csv.DictReader(StringIO(to_csv(result))))["n"] == "8"


def test_notes_name_the_unit_the_test_and_what_it_covers(lab: Lab, drawn: bool) -> None:
    text = " ".join(to_text(made(lab), 10_000).split())
    assert "over n replicates" in text
    assert "2 trials per row and replicate" in text
    assert ("two-way t test, clustered by replicate and by test group" in text) == drawn
    assert ("all replicates have the same test samples" in text) != drawn
    assert "with 8 replicates per row" in text
    assert "7 degrees of freedom, two-sided 5 % / 2, Holm's first step" in text
    assert ("which more replicates do not average out" in text) == drawn


def test_compare_pairs_replicates_and_each_ones_samples(lab: Lab, drawn: bool) -> None:
    runs = load(lab.path, cache=False)
    found = compare(runs, "demo", "good", "none")
    difference = {row.name: row for row in made(lab).rows}["good"].cells["accuracy"].difference
    assert difference is not None
    assert (found.over_seeds.value, found.over_seeds.p) == (difference.value, difference.p)
    assert (found.replicates, found.samples, len(found.pairs)) == (8, GROUPS * PER_GROUP, 16)


def test_a_row_that_a_replicate_divides_differently_is_not_compared(lab: Lab) -> None:
    study(lab, drawn=True)
    row = next(row for row in lab.root.rows() if row.path.name == "good-00000002")
    row.row.write_text(row.row.read_text().replace('"split": "02', '"split": "99'))
    runs = load(lab.path, cache=False)
    kinds = {finding.kind for finding in check_rows(runs, collect(runs, "demo").rows)}
    assert "splits" in kinds
    rows = {row.name: row for row in made(lab).rows}
    assert rows["good"].cells["accuracy"].difference is None
    assert rows["same"].cells["accuracy"].difference is not None


def test_with_one_replicate_the_table_says_that_it_is_one_tuned_configuration(ablation: Lab) -> None:
    result = made(ablation)
    assert "one tuned configuration" in result.subtitle
    assert result.subtitle in " ".join(to_text(result).split())
    assert "one\N{NO-BREAK SPACE}tuning" in next(column.label for column in result.columns if column.key == "p")


def test_the_interval_over_samples_stands_beside_the_paired_t_of_a_fixed_test_part(lab: Lab, drawn: bool) -> None:
    rows = {row.name: row for row in made(lab).rows}
    keys = [column.key for column in made(lab).columns]
    assert ("over_samples" in keys) is not drawn
    if drawn:
        return
    ours, control = by_hand(lab.path, "good"), by_hand(lab.path, "none")
    shares = [np.mean([np.mean([r for r, _ in of[k]], axis=0) for k in range(8)], axis=0) for of in (ours, control)]
    d, groups = 100 * (shares[0] - shares[1]), ours[0][0][1]
    sums = np.array([(d - d.mean())[groups == name].sum() for name in np.unique(groups)])
    error = (GROUPS / (GROUPS - 1) * (sums**2).sum()) ** 0.5 / len(d)
    half = stats.t.ppf(0.975, GROUPS - 1) * error
    assert rows["good"].cells["over_samples"].interval == pytest.approx((d.mean() - half, d.mean() + half))
    found = compare(load(lab.path, cache=False), "demo", "good", "none")
    assert (found.over_samples.low, found.over_samples.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.groups == GROUPS


def test_a_margin_adds_tests_of_equivalence(lab: Lab, drawn: bool) -> None:
    result = table(load(lab.path, cache=False), "demo", margin=30)
    rows = {row.name: row for row in result.rows}
    p = {}
    for name in ("good", "same"):
        difference = rows[name].cells["accuracy"].difference
        assert difference is not None
        assert difference.error is not None
        freedom = 7
        low, high = ((difference.value + sign * 30) / difference.error for sign in (-1, 1))
        p[name] = max(stats.t.cdf(low, freedom), stats.t.sf(high, freedom))
    corrected = {name: max(2 * min(p.values()), p[name]) for name in p}
    assert {name: rows[name].cells["equivalence"].value for name in p} == pytest.approx(corrected)
    assert any(note.startswith("p within ±30: ") for note in result.notes)
    assert "p_equivalence" in to_csv(result).splitlines()[0]
