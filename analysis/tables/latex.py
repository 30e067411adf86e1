r"""A table as LaTeX: a tabular alone, for booktabs, in plain ASCII, so that pdfLaTeX takes any name.

\begin{table}\centering\caption{...}\input{table.tex}\end{table}
"""

# ruff: noqa: RUF001 (this file is about characters that look like others)
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from analysis.tables.model import TIED, Cell, Column, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\`{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
SYMBOLS = {
    "–": r"\textendash{}", "—": r"\textemdash{}", "‘": "`", "’": "'", "“": "``", "”": "''", "„": ",,", "…": r"\dots{}",
    "\N{NO-BREAK SPACE}": "~", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}", "£": r"\pounds{}",
    "©": r"\textcopyright{}",
}  # fmt: skip
MATH = {
    "°": r"^\circ", "±": r"\pm", "×": r"\times", "÷": r"\div", "·": r"\cdot", "•": r"\bullet", "µ": r"\mu",
    "¬": r"\neg", "\N{MINUS SIGN}": "-", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx", "≡": r"\equiv",
    "∞": r"\infty", "→": r"\rightarrow", "←": r"\leftarrow", "↑": r"\uparrow", "↓": r"\downarrow",
    "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "∑": r"\sum", "∏": r"\prod", "√": r"\surd", "∂": r"\partial",
    "∇": r"\nabla", "∈": r"\in", "∘": r"\circ", "∗": r"\ast", "⊕": r"\oplus", "⊗": r"\otimes", "ς": r"\varsigma",
    "ο": "o",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
LATIN_CAPITALS = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True))
"""Greek capitals that TeX has no names for, because they look Latin."""
NAMED = SPECIAL | SYMBOLS | {character: f"${name}$" for character, name in MATH.items()} | LATIN_CAPITALS
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
    sentences = (table.title, *table.notes_with("bold", "underlined", TIED))
    caption = " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)
    needs = "% Needs \\usepackage{booktabs} and, for accents, \\usepackage[T1]{fontenc}. What a caption should say:"
    lines = [needs, f"% {escape(caption)}", *body]
    return "\n".join([OTHER, *lines] if r"\othercharacter" in "\n".join(lines) else lines) + "\n"


ARROWS = {"higher": r"~$\uparrow$", "lower": r"~$\downarrow$", None: ""}


def _letter(table: Table, column: Column) -> str:
    """A column's letter, with room behind it where the ties are marked."""
    return r"r@{\hspace{2em}}" if any(row.cells[column.key].tied for row in table.rows) else "r"


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
    tied = r"\rlap{\,$\approx$}" if cell.tied_with_another else ""  # no width, so that numbers stay aligned
    return text + tied + ("" if cell.footnote is None else f"$^{{{cell.footnote}}}$")


def _below(table: Table, span: int) -> Iterator[str]:
    texts = [f"$^{{{number}}}$ {escape(footnote)}" for number, footnote in enumerate(table.footnotes, start=1)]
    texts += [rf"\textbf{{Warning:}} {escape(warning)}" for warning in table.warnings]
    for text in texts:
        yield rf"\multicolumn{{{span}}}{{@{{}}p{{.95\linewidth}}@{{}}}}{{\footnotesize {text}}} \\"


def escape(text: str) -> str:
    """`text` as LaTeX that prints it, in ASCII where TeX has a name; line breaks become spaces."""
    escaped = "".join(map(_piece, unicodedata.normalize("NFC", " ".join(text.split()))))
    escaped = escaped.replace("--", "-{}-")  # a method's --flag is no dash
    # After a line break of a tabular these would be its argument.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _piece(character: str) -> str:
    if character in NAMED:
        return NAMED[character]
    if " " <= character <= "~":
        return character
    return _greek(character) or _accented(character) or _raised(character) or _unnamed(character)


def _greek(character: str) -> str:
    found = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(character, ""))
    if found is None:
        return ""
    name = found[2].lower().replace("lamda", "lambda")
    return rf"$\{name if found[1] == 'SMALL' else name.capitalize()}$"


def _accented(character: str) -> str:
    base, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) != 1 or marks[0] not in ACCENTS or not base.isascii():
        return ""
    dotless = {"i": r"\i", "j": r"\j"}.get(base, base) if ACCENTS[marks[0]] != "c" else base
    return rf"\{ACCENTS[marks[0]]}{{{dotless}}}"


def _raised(character: str) -> str:
    """Super- and subscript digits and letters."""
    found = re.fullmatch(r"<(super|sub)> (\w+)", unicodedata.decomposition(character))
    base = chr(int(found[2], 16)) if found else ""
    return rf"\text{found[1]}script{{{base}}}" if found and base.isascii() and base.isalnum() else ""


def _unnamed(character: str) -> str:
    if unicodedata.category(character).startswith("C"):
        return ""
    return rf"\othercharacter{{{character}}}{{U+{ord(character):04X}}}"
