"""One table over several data sets repeats the studies' own numbers, ranks rows and says when ranks are not tested."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from roots import Lab

from analysis import across, load, table, to_csv, to_json, to_latex, to_markdown, to_text
from analysis.__main__ import main
from analysis.stats.ranks import FEWEST
from mmkd.errors import UserError


def study(lab: Lab, number: int, crd: float = 0.76, **identity: str) -> str:
    """A study on data set `number`."""
    lab.rows = []
    data = {"fingerprint": f"{number:x}" * 64, "source": f"data {number}"}
    for name, mean, label in (("none", 0.70, "Student without KD"), ("crd", crd, "CRD"), ("kd", 0.72, "KD")):
        more = identity if name == "crd" else {}
        values = [mean - 0.01, mean, mean + 0.01]
        lab.row(f"{name}{number}", values, label=label, method=name, **data, **more)
        lab.rows[-1]["name"] = name
    return lab.study(f"table-d{number}", control="none")


def test_scores_and_differences_are_those_of_the_studies(lab: Lab) -> None:
    names = [study(lab, 1), study(lab, 2, crd=0.68)]
    runs = load(lab.path, cache=False)
    made = across(runs, names)
    assert [column.label for column in made.columns][::2] == [
        "d1 accuracy\N{NO-BREAK SPACE}%", "d2 accuracy\N{NO-BREAK SPACE}%", "mean rank"
    ]  # fmt: skip
    for name in names:
        own = {row.name: row for row in table(runs, name).rows}
        for row in made.rows:
            assert row.cells[f"{name}:accuracy"] == own[row.name].cells["accuracy"]
            assert row.cells[f"{name}:difference"] == own[row.name].cells["difference"]
    ranks = {row.name: row.cells["mean_rank"].value for row in made.rows}
    assert ranks == {"none": 2.5, "crd": 2.0, "kd": 1.5}
    assert any(f"2 data sets, and with fewer than {FEWEST}" in note for note in made.notes)
    assert not any(column.key == "p_rank" for column in made.columns)


def test_enough_data_sets_are_tested(lab: Lab) -> None:
    names = [study(lab, number) for number in range(1, FEWEST + 1)]
    made = across(load(lab.path, cache=False), names)
    rows = {row.name: row for row in made.rows}
    assert made.columns[-1].key == "p_rank"
    assert rows["crd"].cells["mean_rank"].value == 1.0
    p = rows["crd"].cells["p_rank"].value
    assert p is not None
    assert p < 0.05
    assert any("Friedman's test" in note and "rows differ" in note for note in made.notes)
    for text in (to_text(made), to_markdown(made), to_latex(made), to_json(made)):
        assert "mean" in text
    lines = list(csv.DictReader(StringIO(to_csv(made))))
    line = next(line for line in lines if line["row"] == "crd" and line["metric"] == "table-d1:difference")
    assert float(line["value"]) == pytest.approx(6.0)


def test_what_is_not_the_same_row_or_no_other_data_set_is_a_warning(lab: Lab) -> None:
    names = [study(lab, 1), study(lab, 2, level="final")]
    lab.rows = [{**row} for row in lab.rows]
    twice = lab.study("table-again", control="none")
    warnings = across(load(lab.path, cache=False), [*names, twice]).warnings
    assert "row crd: levels are unequal: table-d1: none, table-d2: final, table-again: final" in warnings
    assert any(text.startswith("table-d2 and table-again are on the same data") for text in warnings)


def test_the_command(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = [study(lab, 1), study(lab, 2)]
    assert main(["table", "--root", str(lab.path), "--across", *names, "--rows", "crd"]) == 0
    assert "(2 data sets)" in capsys.readouterr().out
    assert main(["table", "--root", str(lab.path), "--across", names[0], "nothing"]) == 2
    assert "unknown study (--across) 'nothing'" in capsys.readouterr().err
    assert main(["table", "--root", str(lab.path), "--across", *names, "--margin", "1"]) == 2
    with pytest.raises(UserError, match="name two studies or more"):
        across(load(lab.path, cache=False), names[:1])
