"""The formats of a table. Equal tables give equal text. Light to import: --help lists them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.tables.model import Table

FORMATS = {
    "txt": ("text", "to_text"),
    "md": ("markdown", "to_markdown"),
    "tex": ("latex", "to_latex"),
    "html": ("html", "to_html"),
    "csv": ("csv_json", "to_csv"),
    "json": ("csv_json", "to_json"),
}
"""Ending of each format, and the module of `analysis.tables` and its function that write it."""


def write(table: Table, style: str) -> str:
    """The table in one of `FORMATS`."""
    module, function = FORMATS[style]
    return str(getattr(import_module(f"analysis.tables.{module}"), function)(table))
