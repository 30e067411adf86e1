"""Text and Markdown of equal tables are equal, aligned and within their width."""

import subprocess
import sys

import pytest
from roots import Lab

from analysis import load, table, to_markdown, to_text
from analysis.__main__ import main
from analysis.model import Table


@pytest.fixture
def made(ablation: Lab) -> Table:
    return table(load(ablation.path), "demo")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_text_stays_within_its_width(made: Table, width: int) -> None:
    lines = to_text(made, width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_text_has_every_column_and_row_at_any_width(made: Table) -> None:
    for width in (60, 100, 200):
        text = to_text(made, width)
        for word in ("75.0 ± 1.0", "accuracy", "majority", "1,802,345", "seconds", "Teacher"):
            assert word in text


def test_a_row_is_one_aligned_line_where_there_is_room(made: Table) -> None:
    lines = to_text(made, 140).splitlines()
    control, crd = (next(line for line in lines if line.startswith(label)) for label in ("Student", "CRD"))
    assert control.index("±") == crd.index("±")
    assert len(control) == len(crd)


def test_markdown_is_one_table_with_the_warnings_below(ablation: Lab) -> None:
    ablation.row("odd", [0.7], label="a|b *c*", group="G", trials=1)
    ablation.study()
    text = to_markdown(table(load(ablation.path), "demo"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert r"a\|b \*c\*" in lines[-1]
    assert "**G**" in lines[-2]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {11}
    assert "> **WARNING:** tuning budgets (trials) are unequal" in text
    assert "<sup>1</sup> no gap" in text


def test_equal_inputs_give_equal_bytes(ablation: Lab) -> None:
    first, second = (table(load(ablation.path), "demo") for _ in range(2))
    assert to_text(first, 80) == to_text(second, 80)
    assert to_markdown(first) == to_markdown(second)


def test_the_command_prints_the_only_study(ablation: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "--root", str(ablation.path)]) == 0
    assert capsys.readouterr().out == to_text(table(load(ablation.path), "demo"))


def test_the_command_writes_a_file(ablation: Lab) -> None:
    out = ablation.path / "table.md"
    assert main(["table", "--root", str(ablation.path), "--format", "md", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("### Study demo\n")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--study", "dmo"], "did you mean demo"),
        (["--root", "nowhere"], "nowhere: no such folder"),
        (["--out", "no/such/folder/x"], "No such file or directory"),
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


def test_importing_analysis_is_light() -> None:
    code = "import sys, analysis; print([m for m in ('torch', 'optuna', 'submitit', 'sweeps') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
