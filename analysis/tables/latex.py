r"""A table as LaTeX: a tabular alone, for booktabs, in plain ASCII, so that pdfLaTeX takes any name.

\begin{table}\centering\caption{...}\input{table.tex}\end{table}
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pylatexenc.latexencode import RULE_REGEX, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from analysis.tables.model import TIED, UNTESTED, Cell, Column, Table

OTHER = r"\providecommand{\othercharacter}[2]{\ifdefined\Umathcode#1\else\texttt{#2}\fi}"
"""A character without a name in TeX: itself in XeLaTeX and LuaLaTeX, its number in pdfLaTeX."""


def to_latex(table: Table) -> str:
    """The table as a tabular, the caption and what it needs in comments above it; warnings are in the table."""
    span = len(table.columns) + 1
    labels = [_stacked(column) for column in table.columns]
    letters = "".join(_letter(table, column) for column in table.columns)
    body = [rf"\begin{{tabular}}{{@{{}}l{letters}@{{}}}}", r"\toprule", _row(["", *labels]), r"\midrule"]
    for number, section in enumerate(table.sections):
        body += [r"\addlinespace"] if number else []
        if section.title is not None:
            body.append(rf"\multicolumn{{{span}}}{{@{{}}l@{{}}}}{{\emph{{{escape(section.title)}}}}} \\")
        for row in section.rows:
            body.append(_row([escape(row.shown), *(_cell(row.cells[column.key]) for column in table.columns)]))
    body += [r"\bottomrule", *_below(table, span), r"\end{tabular}"]
    first = (text.rstrip(".") for text in (table.title, table.verdict, table.subtitle) if text)
    sentences = (*first, *table.notes_with("bold", "underlined"))
    caption = " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)
    needs = "% Needs \\usepackage{booktabs} and, for accents, \\usepackage[T1]{fontenc}. What a caption should say:"
    lines = [needs, f"% {escape(caption)}", *body]
    return "\n".join([OTHER, *lines] if r"\othercharacter" in "\n".join(lines) else lines) + "\n"


ARROWS = {"higher": r"~$\uparrow$", "lower": r"~$\downarrow$", None: ""}


def _letter(table: Table, column: Column) -> str:
    """A column's letter, with room behind it where the ties are marked."""
    return r"r@{\hspace{2em}}" if any(row.cells[column.key].mark for row in table.rows) else "r"


def _stacked(column: Column) -> str:
    """A header, its words in lines: a paper is narrow."""
    lines = [escape(word) for word in column.label.split(" ")]  # no-break spaces stay within a line
    lines[-1] += ARROWS[column.better]
    stack = r" \\ ".join(lines)
    return stack if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{stack}\end{{tabular}}"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.text and cell.rank in (1, 2):
        text = rf"\{'textbf' if cell.rank == 1 else 'underline'}{{{text}}}"
    mark = {TIED: r"\rlap{\,$\approx$}", UNTESTED: r"\rlap{\,?}"}.get(cell.mark, "")  # no width: numbers stay aligned
    return text + mark + ("" if cell.footnote is None else f"$^{{{cell.footnote}}}$")


def _below(table: Table, span: int) -> Iterator[str]:
    texts = [f"$^{{{number}}}$ {escape(footnote)}" for number, footnote in enumerate(table.footnotes, start=1)]
    texts += [rf"\textbf{{Warning:}} {escape(warning)}" for warning in table.warnings]
    for text in texts:
        yield rf"\multicolumn{{{span}}}{{@{{}}p{{.95\linewidth}}@{{}}}}{{\footnotesize {text}}} \\"


ENCODED = re.compile("[ĄąĘęĮįŲųĐđÐðÞþŊŋ„«»\u201a\u2039\u203a\u0400-\u04ff]")
"""Characters whose names in TeX need a font encoding that documents may lack: T1's, and Cyrillic."""


def _unnamed(character: str) -> str:
    return rf"\othercharacter{{{character}}}{{U+{ord(character):04X}}}"


_RULE = UnicodeToLatexConversionRule(RULE_REGEX, [(ENCODED, lambda found: _unnamed(found[0]))], "none")
_ENCODER = UnicodeToLatexEncoder(
    conversion_rules=[_RULE, "defaults"], unknown_char_policy=_unnamed, unknown_char_warning=False
)


def escape(text: str) -> str:
    """`text` as LaTeX that prints it, in ASCII where TeX has a name; line breaks become spaces."""
    printable = (c for c in unicodedata.normalize("NFC", " ".join(text.split())) if unicodedata.category(c)[0] != "C")
    escaped = _ENCODER.unicode_to_latex("".join(printable)).replace("--", "-{}-")  # a method's --flag is no dash
    # After a line break of a tabular these would be its argument.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped
