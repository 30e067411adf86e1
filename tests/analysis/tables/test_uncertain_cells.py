"""What is not known, not tested or not a number is said, and never looks like something else."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from roots import Lab

from analysis import examine, load, per_class, table, to_csv, to_html, to_json, to_latex, to_markdown, to_text
from analysis.doctor import examination_text
from analysis.tables.gap_cell import NOT_BETTER
from analysis.tables.model import Cell, Column, Table, TableRow
from analysis.tables.rounding import cell_text
from mmkd.files import read_json, write_json
from mmkd.formatting import significant
from mmkd.result_file import read_result, write_result


def made(lab: Lab) -> Table:
    return table(load(lab.path, cache=False), "demo")


def rows(lab: Lab) -> Mapping[str, TableRow]:
    return {row.name: row for row in made(lab).rows}


@pytest.mark.parametrize("few", ["best", "other"])
def test_untested_does_not_look_like_different(lab: Lab, few: str) -> None:
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("best", [0.74] if few == "best" else [0.73, 0.74, 0.75])
    lab.row("other", [0.73] if few == "other" else [0.72, 0.73, 0.735])
    lab.study(control="none")
    marks = {name: row.cells["accuracy"].mark for name, row in rows(lab).items()}
    assert marks == {"none": "?" if few == "best" else "", "best": "", "other": "?"}
    result = made(lab)
    assert "?: too few seeds to test" in result.legend
    for text in (to_text(result, 200), to_markdown(result), to_latex(result), to_html(result)):
        assert "?" in text.partition("too few seeds")[0]


def test_where_all_are_tested_the_mark_is_not_explained(ablation: Lab) -> None:
    assert "too few" not in made(ablation).legend


def test_the_gap_has_an_interval(ablation: Lab) -> None:
    cell = rows(ablation)["crd"].cells["gap"]
    assert cell.interval is not None
    assert cell.interval[0] < 100 * 4 / 9 < cell.interval[1]
    low, high = (f"{end:.0f}" for end in cell.interval)
    assert cell.text == f"44 [{low}, {high}]"
    assert f"{cell.interval[0]}" in to_csv(made(ablation))


def test_no_gap_where_the_teacher_is_one_point_better_by_chance(lab: Lab) -> None:
    teachers = [lab.teacher(seed, accuracy) for seed, accuracy in ((1, 0.71), (2, 0.72), (3, 0.73))]
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("crd", [0.74, 0.75, 0.76], teachers)
    lab.study(control="none")
    assert rows(lab)["crd"].cells["gap"].value is None
    assert made(lab).footnotes == (NOT_BETTER,)


SPREAD = Column("accuracy", "accuracy", "spread")


@pytest.mark.parametrize(
    ("value", "error", "decimals", "finest", "text"),
    [
        (32.14, 0.4, 0, 1, "32.1 ± 0.4"),
        (32.14, 0.04, 0, 1, "32.1 ± 0.04"),  # no finer than a sample, and not zero
        (32.14, 4.0, 0, 1, "32 ± 4"),
        (32.14, 0.0, 0, 1, "32 ± 0"),  # all seeds are equal
        (32.14, 0.4, 0, 0, "32 ± 0.4"),
    ],
)
def test_a_spread_is_never_rounded_to_zero(value: float, error: float, decimals: int, finest: int, text: str) -> None:
    assert cell_text(SPREAD, Cell(value, error=error), decimals, finest) == text


def test_a_small_spread_beside_large_ones_is_shown(lab: Lab) -> None:
    lab.row("none", [0.320, 0.325, 0.327])
    for name, scores in {"wide": [0.5, 0.9, 0.1], "wider": [0.3, 0.9, 0.1]}.items():
        lab.row(name, scores)
    lab.study(control="none")
    assert rows(lab)["none"].cells["accuracy"].text == "32.4 ± 0.4"
    minimum = next(note for note in made(lab).notes if note.startswith("minimum detectable"))
    assert "150 points" in minimum


def test_significant_digits_without_an_exponent() -> None:
    assert [significant(value) for value in (207.3, 9.96, 1.0, 0.304, 0.021)] == ["210", "10", "1", "0.3", "0.021"]


@pytest.mark.parametrize("metric", ["weighted_f1", "macro_f1", "accuracy", "majority_share", "loss"])
def test_a_metric_that_is_not_a_number_is_left_out_and_named(ablation: Lab, metric: str) -> None:
    trial = ablation.row_of("crd").final_run(2, "abcdef01")
    result = read_result(trial.result)
    write_result(trial, replace(result, metrics={"test": {**result.metrics["test"], metric: math.nan}}))
    found = made(ablation)
    for text in (to_text(found), to_json(found), to_csv(found)):
        assert not re.search(r"\bnan\b", text.lower())
    if metric == "accuracy":
        assert "CRD on attention maps: 2/3 seeds (seed 2 has no accuracy on test)" in found.warnings
    elif metric != "loss":
        assert f"CRD on attention maps: test {metric} is not a number, and left out: 2-abcdef01" in found.warnings
        assert rows(ablation)["crd"].cells[metric].value == pytest.approx(
            sum(100 * read_result(ablation.row_of("crd").final_run(k, "abcdef01").result).metrics["test"][metric]
                for k in (1, 3)) / 2
        )  # fmt: skip
    json.loads(to_json(found))


def test_per_class_says_of_how_many_runs_a_mean_is(lab: Lab) -> None:
    row = lab.row("none", [0.7, 0.71, 0.72])
    lab.study()
    trial = row.final_run(2, "abcdef01")
    result = read_result(trial.result)
    test = result.predictions["test"]
    never = test.logits.copy()
    never[:, 2] -= 100  # class 2 is never predicted
    write_result(trial, replace(result, predictions={"test": replace(test, logits=never)}))
    lines = per_class(load(lab.path, cache=False), "demo").set_index("class")
    assert list(lines["seeds"]) == [3, 3, 3]
    assert list(lines["precision_n"]) == [3, 3, 2]
    assert list(lines["recall_n"]) == [3, 3, 3]


def test_a_lost_result_is_called_so(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    for seed in (1, 2, 3):
        row.final_run(seed, "abcdef01").result.unlink()
        row.final_run(seed, "abcdef01").attempt.write_text("1\n")
    said = examination_text(examine(load(ablation.path, cache=False)))
    assert "trials that are to be retried after lost result: 3" in said
    assert "complete" not in said


def test_a_seed_that_the_last_launch_did_not_ask_for_is_no_former_winners(ablation: Lab) -> None:
    """After `launch --seeds 2` on a root of 3 seeds, winner.json names two of the winner's three runs."""
    winner = ablation.row_of("none").winner
    record = read_json(winner)
    assert record is not None
    confirm = {seed: name for seed, name in record["confirm"].items() if seed != "3"}
    write_json(winner, {**record, "seeds": [1, 2], "confirm": confirm})
    assert made(ablation).warnings == ()
    assert rows(ablation)["none"].cells["seeds"].text == "3"
    assert rows(ablation)["crd"].cells["p"].value is not None


def test_a_run_of_a_seed_that_no_study_asks_for_is_in_no_table(ablation: Lab) -> None:
    for row in ablation.rows:
        row["seeds"] = [1, 2]
    ablation.study(control="none")
    fates = examine(load(ablation.path, cache=False)).fates.set_index("directory")["fate"]
    assert fates["rows/crd-01234567/confirm/2-abcdef01"] == "in a table"
    assert fates["rows/crd-01234567/confirm/3-abcdef01"] == "of a seed that no study asks for"
    assert list(fates[fates.index.str.startswith("teachers/")].value_counts()) == [2, 1]


@pytest.mark.parametrize(
    ("primary", "modalities", "shown"),
    [
        ("video", ("video", "audio", "language"), True),
        ("audio", ("video", "audio", "language"), False),
        ("video", ("video", "language", "audio"), False),
        ("video", ("video", "audio"), False),
    ],
)
def test_the_papers_figures_stand_beside_its_own_student_alone(
    ablation: Lab, primary: str, modalities: Sequence[str], shown: bool
) -> None:
    for row in ablation.root.rows():
        facts = read_json(row.row)
        assert facts is not None
        facts["data"]["modalities"], facts["identity"]["primary"] = list(modalities), primary
        write_json(row.row, facts)
    ablation.rows[1]["paper"] = {"accuracy": 44.031, "f1": 36.11}
    ablation.study(control="none")
    keys = [column.key for column in made(ablation).columns]
    assert ("paper_accuracy" in keys) == shown


def test_rows_that_are_not_compared_do_not_decide_what_is_detectable(ablation: Lab) -> None:
    ablation.row("foreign", [0.1, 0.5, 0.9], fingerprint="e" * 64)
    ablation.rows[-1]["seeds"] = [1, 2, 3]
    ablation.study(control="none")
    minimum = next(note for note in made(ablation).notes if note.startswith("minimum detectable"))
    assert "3.5 points" in minimum
    assert "pooled SD 1)" in minimum


def test_holms_count_is_of_the_comparisons_that_have_a_p(ablation: Lab) -> None:
    ablation.row("one", [0.73])
    ablation.study(control="none")
    assert any("corrected by Holm for 1 comparison" in note for note in made(ablation).notes)
    assert rows(ablation)["crd"].cells["accuracy"].difference.p == rows(ablation)["crd"].cells["p"].value  # type: ignore[union-attr]
