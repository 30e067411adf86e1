"""Each row is compared with the student without KD that has its network; the study's own control stays beside it."""

import numpy as np
import pytest
from roots import Lab
from scipy import stats

from analysis import load, table, to_csv, to_text
from analysis.figures.forest import forest, forest_data
from analysis.loading.study_rows import collect
from analysis.tables.checks import check_rows
from analysis.tables.model import Table
from mmkd.files import read_json, write_json

NONE, WIDE, CRD, KD = [0.70, 0.71, 0.72], [0.78, 0.79, 0.81], [0.74, 0.75, 0.77], [0.80, 0.81, 0.82]
STEPS = {"video": 40, "audio": 20}


def study(lab: Lab) -> Table:
    """`crd` beside the study's control, `kd` beside the student `wide`."""
    lab.row("none", NONE)
    lab.row("crd", CRD)
    lab.row("wide", WIDE, student={"width": 64})
    lab.row("kd", KD, student={"width": 64})
    lab.rows[-1]["control"] = "wide"
    return table(load(lab.path, cache=False), lab.study(control="none"))


def warnings(lab: Lab) -> list[str]:
    runs = load(lab.path, cache=False)
    return [found.text for found in check_rows(runs, collect(runs, "demo").rows) if found.kind == "controls"]


def test_difference_gap_and_p_refer_to_the_rows_own_control(lab: Lab) -> None:
    rows = {row.name: row for row in study(lab).rows}
    own, common = rows["kd"].cells["accuracy"].difference, rows["kd"].cells["accuracy"].to_study_control
    assert own is not None
    assert common is not None
    assert own.value == pytest.approx(100 * (np.mean(KD) - np.mean(WIDE)))
    assert common.value == pytest.approx(100 * (np.mean(KD) - np.mean(NONE)))
    p = {
        name: stats.ttest_ind(*pair, equal_var=False).pvalue
        for name, pair in (("kd", (KD, WIDE)), ("crd", (CRD, NONE)))
    }
    assert rows["kd"].cells["p"].value == pytest.approx(max(2 * min(p.values()), p["kd"])), "Holm over two, not three"
    assert rows["crd"].cells["p"].value == pytest.approx(max(2 * min(p.values()), p["crd"]))
    assert rows["wide"].cells["difference"].value is None, "a control of its own"
    assert rows["wide"].cells["to_control"].value == pytest.approx(100 * (np.mean(WIDE) - np.mean(NONE)))


def test_table_says_which_row_is_whose_control(lab: Lab) -> None:
    made = study(lab)
    assert any(note.startswith("control of kd: “wide”") for note in made.notes)
    assert "Δ to the" in to_text(made)
    line = next(line for line in to_csv(made).splitlines() if ",kd,kd,student,,accuracy," in line)
    assert ",wide," in line
    assert warnings(lab) == []


def test_without_own_controls_there_is_no_second_column(lab: Lab) -> None:
    lab.row("none", NONE)
    lab.row("crd", CRD)
    made = table(load(lab.path, cache=False), lab.study(control="none"))
    assert "to_control" not in [column.key for column in made.columns]
    assert not any("Δ to the study's control" in note for note in made.notes)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"student": {"width": 32}}, "width 32, there 8"),
        ({"student": {"width": 8, "dropout": {"output": 0.5}}}, "dropout.output 0.5, there not set"),
        ({"student": {"width": 8, "readout": "mean"}}, "readout mean, there not set"),
        ({"student": {"width": 8}, "pairing": "complete"}, "pairing complete, there others"),
        ({"student": {"width": 8}, "settings": {"size": "up"}}, "proxies up, there down"),
    ],
)
def test_a_control_with_another_student_is_a_warning(lab: Lab, changed: dict[str, object], said: str) -> None:
    lab.row("none", NONE, student={"width": 8})
    lab.row("crd", CRD, **changed)
    lab.study(control="none")
    assert warnings(lab) == [f"crd: compared with “none”, whose student is another: {said}"]


@pytest.mark.parametrize(("steps", "found"), [(STEPS, 1), ({"video": 40, "audio": 40}, 0), ({}, 1)])
def test_sizes_of_proxies_matter_where_lengths_differ_or_are_not_known(
    lab: Lab, steps: dict[str, int], found: int
) -> None:
    lab.row("none", NONE)
    lab.row("edam", CRD, settings={"size": "up"})
    for row in lab.root.rows():
        record = read_json(row.row)
        write_json(row.row, {**record, "data": {**record["data"], "steps": steps}})
    lab.study(control="none")
    assert len(warnings(lab)) == found


def test_the_forest_plot_shows_the_tables_differences_and_leaves_controls_out(lab: Lab) -> None:
    study(lab)
    runs = load(lab.path, cache=False)
    found = collect(runs, "demo")
    assert found.control is not None
    data = forest_data(runs, found.rows, found.control, "accuracy")
    assert [compared.label for compared in data] == ["crd", "kd"]
    assert data[1].difference is not None
    assert data[1].difference.value == pytest.approx(100 * (np.mean(KD) - np.mean(WIDE)))
    assert "the row's control" in forest(runs, "demo").get_xlabel()
