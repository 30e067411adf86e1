"""The formats that a table is written in, one function each. Equal tables give equal text."""

from __future__ import annotations

from collections.abc import Callable

from analysis.tables.csv_json import to_csv, to_json
from analysis.tables.html import to_html
from analysis.tables.latex import to_latex
from analysis.tables.markdown import to_markdown
from analysis.tables.model import Table
from analysis.tables.text import to_text

__all__ = ["FORMATS", "to_csv", "to_html", "to_json", "to_latex", "to_markdown", "to_text"]

FORMATS: dict[str, Callable[[Table], str]] = {
    "txt": to_text,
    "md": to_markdown,
    "tex": to_latex,
    "html": to_html,
    "csv": to_csv,
    "json": to_json,
}
