"""Every format of equal tables is equal; text is aligned and within its width; numbers lose nothing as data."""

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO

import pytest
from roots import Lab

from analysis import load, table, to_csv, to_html, to_json, to_markdown, to_text
from analysis.__main__ import main
from analysis.tables.formats import FORMATS, write
from analysis.tables.model import Table


@pytest.fixture
def made(ablation: Lab) -> Table:
    return table(load(ablation.path, cache=False), "demo")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_text_stays_within_its_width(made: Table, width: int) -> None:
    lines = to_text(made, width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_text_has_every_column_and_row_at_any_width(made: Table) -> None:
    for width in (60, 100, 200):
        text = to_text(made, width)
        for word in ("75.0 ± 1.0", "accuracy", "maj.", "1,802,345", "minutes", "Teacher"):
            assert word in text


def test_a_row_is_one_aligned_line_where_there_is_room(made: Table) -> None:
    lines = to_text(made, 160).splitlines()
    control, crd = (next(line for line in lines if line.startswith(label)) for label in ("Student", "CRD"))
    assert control.index("±") == crd.index("±")
    assert len(control) == len(crd)


def test_markdown_is_one_table_with_the_warnings_below(ablation: Lab) -> None:
    ablation.row("odd", [0.7], label="a|b *c*", group="G", trials=1)
    ablation.study()
    text = to_markdown(table(load(ablation.path, cache=False), "demo"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert r"a\|b \*c\*" in lines[-1]
    assert "**G**" in lines[-2]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {12}
    assert "> **WARNING:** tuning budgets (trials) are unequal" in text
    assert "<sup>1</sup> no gap" in text


def test_equal_inputs_give_equal_bytes(ablation: Lab) -> None:
    first, second = (table(load(ablation.path, cache=False), "demo") for _ in range(2))
    assert to_text(first, 80) == to_text(second, 80)
    for style in FORMATS:
        assert write(first, style) == write(second, style), style


def test_marks_stand_behind_the_numbers_which_stay_aligned(made: Table) -> None:
    lines = to_text(made, 160).splitlines()
    assert any("75.0 ± 1.0◆ " in line for line in lines)
    assert any("71.0 ± 1.0◇ " in line for line in lines)
    assert "◆ is the best and ◇ the second of the 2 students" in to_text(made, 160)
    assert "**75.0 ± 1.0**" in to_markdown(made)
    assert "<ins>71.0 ± 1.0</ins>" in to_markdown(made)
    assert "- bold is the best and underlined the second" in to_markdown(made)


class _Page(HTMLParser):
    """Collects a page's tags, its cells, and whatever it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_html_is_whole_needs_nothing_from_elsewhere_and_escapes_names(ablation: Lab) -> None:
    ablation.row("odd", [0.7], label="<script>alert(1)</script> & co", group="<b>", trials=1)
    ablation.study(control="none")
    page = _Page(to_html(table(load(ablation.path, cache=False), "demo")))
    assert page.open == []
    assert page.fetched == []
    assert page.rows[-1][0] == "<script>alert(1)</script> & co"
    assert page.rows[-2] == ["<b>"]
    assert {len(row) for row in page.rows if len(row) > 1} == {13}


def test_csv_has_one_line_a_method_and_metric_at_full_precision(ablation: Lab) -> None:
    made = table(load(ablation.path, cache=False), "demo")
    lines = list(csv.DictReader(StringIO(to_csv(made))))
    found = {(line["label"], line["metric"]): line for line in lines}
    assert len(found) == len(lines) == 3 * 10 + 1
    assert found["", "verdict"]["text"] == made.verdict
    line = found["CRD on attention maps", "accuracy"]
    cell = made.rows[-1].cells["accuracy"]
    assert cell.difference is not None
    assert float(line["value"]) == cell.value
    assert float(line["sd"]) == cell.spread
    assert float(line["sem"]) == pytest.approx(1 / 3**0.5)
    assert float(line["ci95"]) == pytest.approx(4.30265 / 3**0.5, abs=1e-5)
    assert float(line["p_holm"]) == cell.difference.corrected
    assert (line["n"], line["rank"], line["tied_with_best"], line["unit"]) == ("3", "1", "1", "percent")
    assert found["Teacher", "cost"]["unit"] == "minutes"
    assert found["Student without KD", "accuracy"]["p"] == ""


def test_json_says_where_each_row_comes_from(ablation: Lab) -> None:
    made = table(load(ablation.path, cache=False), "demo")
    value = json.loads(to_json(made))
    crd = value["provenance"]["rows"][1]
    assert crd["runs"] == [f"rows/crd-01234567/confirm/{seed}-abcdef01" for seed in (1, 2, 3)]
    assert (crd["winner"], crd["commits"], crd["data"]["fingerprint"]) == (0, ["a" * 12], "f" * 64)
    assert value["sections"][0]["rows"][2]["cells"]["accuracy"]["value"] == made.rows[-1].cells["accuracy"].value
    assert str(ablation.path) not in to_json(made)


def test_the_command_prints_the_only_study(ablation: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "--root", str(ablation.path)]) == 0
    made = table(load(ablation.path, cache=False), "demo")
    assert capsys.readouterr().out == to_text(made, short=True)
    assert main(["table", "--root", str(ablation.path), "--notes", "all"]) == 0
    assert capsys.readouterr().out == to_text(made)


def test_the_command_writes_a_file(ablation: Lab) -> None:
    out = ablation.path / "table.md"
    assert main(["table", "--root", str(ablation.path), "--format", "md", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("### Study demo\n")


def test_the_ending_of_the_file_chooses_the_format(ablation: Lab) -> None:
    out = ablation.path / "table.tex"
    assert (
        main(["table", "--root", str(ablation.path), "--out", str(out), "--error", "ci", "--columns", "seeds,p"]) == 0
    )
    text = out.read_text(encoding="utf-8")
    assert r"\begin{tabular}{@{}lrr@{}}" in text
    assert "half of the 95 \\% confidence interval" in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--study", "dmo"], "did you mean demo"),
        (["--root", "nowhere"], "nowhere: no such directory"),
        (["--out", "no/such/directory/x"], "the directory no/such/directory does not exist"),
        (["--out", "table.pdf"], "table.pdf: no format .pdf; there are txt, md, tex, html, csv, json"),
    ],
)
def test_the_users_errors_are_one_line(
    ablation: Lab, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert main(["table", "--root", str(ablation.path), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_the_command_wants_a_name_where_there_are_several_studies_or_none(
    ablation: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.study("other")
    assert main(["table", "--root", str(ablation.path)]) == 2
    assert "(demo, other)" in capsys.readouterr().err
    for path in ablation.path.glob("studies/*"):
        path.unlink()
    assert main(["table", "--root", str(ablation.path)]) == 2
    assert "no study here" in capsys.readouterr().err


def test_a_table_needs_neither_training_nor_figures() -> None:
    code = (
        "import sys, analysis; analysis.table, analysis.load, analysis.to_text;"
        "print([m for m in ('torch', 'matplotlib', 'optuna', 'submitit', 'sweeps') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
