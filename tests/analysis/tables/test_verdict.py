"""A table opens with its result, and in short form it fits a terminal."""

import pytest
from roots import Lab

from analysis import load, table, to_html, to_latex, to_markdown, to_text
from analysis.tables.model import Table


def made(lab: Lab, **study: str) -> Table:
    return table(load(lab.path, cache=False), lab.study(**study))


def test_rows_that_differ_are_named_with_what_could_have_been_detected(lab: Lab) -> None:
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("good", [0.80, 0.81, 0.82])
    lab.row("same", [0.705, 0.71, 0.72])
    assert made(lab, control="none").verdict == (
        "1 of 2 compared rows differs from the control (Holm, 5 %), in points of accuracy: good +10.0; "
        "the study could have detected 4.2 points."
    )


def test_no_difference_is_said_with_what_could_have_been_detected(lab: Lab) -> None:
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("same", [0.705, 0.71, 0.72])
    verdict = made(lab, control="none").verdict
    assert verdict.startswith("No row differs significantly from its control (1 compared, Holm, 5 %); the study could")


@pytest.mark.parametrize("control", [None, "none"])
def test_without_a_test_there_is_no_verdict(lab: Lab, control: str | None) -> None:
    lab.row("none", [0.70])
    lab.row("good", [0.80])
    lab.tune(lab.begin_row("late"), [0.5])
    table_name = lab.study(control=control)
    verdict = table(load(lab.path, cache=False), table_name).verdict
    if control is None:
        assert verdict == "No verdict: the study names no control."
    else:
        assert verdict.startswith("No verdict: no row can be tested against its control (fewer than two seeds")
        assert verdict.endswith("1 of 3 rows without a final score.")


def test_every_format_shows_the_verdict_first(ablation: Lab) -> None:
    result = made(ablation, control="none")
    assert result.verdict.startswith("1 of 1 compared row differs")
    for text, first in ((to_text(result, 10_000), "75.0"), (to_markdown(result), "75.0"), (to_html(result), "<table")):
        assert text.index("1 of 1 compared row differs") < text.index(first)
    assert "compared row differs" in to_latex(result).split(r"\begin{tabular}")[0]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_short_table_is_one_block_with_the_main_columns(ablation: Lab, width: int) -> None:
    result = made(ablation, control="none")
    lines = to_text(result, width, short=True).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("───") for line in lines) == 3
    header = " ".join(" ".join(lines).split())
    assert "accuracy" in header
    assert "75.0 ± 1.0" in header
    assert "--notes all" in header
    assert len(lines) <= (24 if width >= 80 else 30)


def test_a_short_table_cuts_long_warnings_and_says_which_columns_are_left_out(ablation: Lab) -> None:
    for number in range(6):
        ablation.row(f"a_row_with_a_long_name_{number}", [0.7, 0.71, 0.72], trials=3 + number)
    result = made(ablation, control="none")
    warning = next(text for text in result.warnings if text.startswith("tuning budgets"))
    short, whole = to_text(result, 80, short=True), to_text(result, 80)
    assert warning not in " ".join(short.split())
    assert warning in " ".join(whole.split())
    assert "no room for" in short
    assert "no room for" not in whole
