"""LaTeX: any name compiles, in a real LaTeX."""

# ruff: noqa: RUF001 (this file is about characters that look like others)

import shutil
import subprocess
from pathlib import Path

import pytest
from roots import Lab

from analysis import load, table, to_latex
from analysis.tables.latex import escape

HOSTILE = [
    r"%_&#$~^\{}",
    r"\input{/etc/passwd} \end{tabular} $\frac",
    "[1cm] a * b",
    "*starred & 100 % of {braces",
    "a--b---c <<d>> ``e'' \"f\" |g| `h`",
    "naïve façade Škoda Ångström Erdős ß œ ł ı ț ą „Đð« ‹þ›",
    "αβγ Δ Ω ς Α → ≤ ± × ∞ √ x² H₂O aⁿ µ",
    "日本語 Привет עברית 🙂 \u200bzero\u0007bell e\u0301",
]


@pytest.fixture
def hostile(lab: Lab) -> str:
    """A table with these names everywhere: labels, groups, title, footnotes and warnings."""
    for number, name in enumerate(HOSTILE):
        lab.row(f"row{number}", [0.7], label=name, group=name, trials=1 + number % 2)
    lab.study("demo", control="row0")
    return to_latex(table(load(lab.path, cache=False), "demo"))


def test_hostile_names_compile(hostile: str, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex here (Debian: texlive-latex-recommended)")
    (tmp_path / "table.tex").write_text(hostile, encoding="utf-8")
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "document"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "document.pdf").stat().st_size > 1000


def test_it_is_a_tabular_alone_with_a_rule_above_and_below(hostile: str) -> None:
    code = [line for line in hostile.splitlines() if not line.startswith("%")]
    assert code[0].startswith(r"\providecommand{\othercharacter}")
    assert code[1].startswith(r"\begin{tabular}{@{}l")
    assert code[-1] == r"\end{tabular}"
    assert [code.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_rows_have_as_many_cells_as_columns(ablation: Lab) -> None:
    text = to_latex(table(load(ablation.path, cache=False), "demo"))
    rows = [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in rows} == {12}
    assert len(rows) == 4


def test_best_second_and_ties_are_bold_underlined_and_marked(ablation: Lab) -> None:
    text = to_latex(table(load(ablation.path, cache=False), "demo"))
    assert r"CRD on attention maps & \textbf{75.0 \ensuremath{\pm} 1.0} &" in text
    assert r"Student without KD & \underline{71.0 \ensuremath{\pm} 1.0} &" in text


def test_warnings_are_in_the_table_itself(lab: Lab) -> None:
    lab.row("a", [0.7], trials=1)
    lab.row("b", [0.7], trials=2)
    lab.study("demo")
    text = to_latex(table(load(lab.path, cache=False), "demo"))
    assert r"\textbf{Warning:} tuning budgets (trials) are unequal" in text.partition(r"\bottomrule")[2]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        (r"50% of A_1 & B#2", r"50\% of A\_1 \& B\#2"),
        ("\\", r"{\textbackslash}"),
        ("β → é", r"\ensuremath{\beta} {\textrightarrow} \'e"),
        ("λ Λ ο", r"\ensuremath{\lambda} \ensuremath{\Lambda} o"),
        ("--flag", "-{}-flag"),
        ("[a]", "{}[a]"),
        ("x²", r"x{\texttwosuperior}"),
        ("two\nlines", "two lines"),
        ("日", r"\othercharacter{日}{U+65E5}"),
        ("ï", r"{\"\i}"),
    ],
)
def test_escaping(text: str, latex: str) -> None:
    assert escape(text) == latex
