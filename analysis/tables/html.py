"""A table as HTML, by the templates beside this file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.tables.model import ARROWS, Table

_HERE = Path(__file__).parent
STYLE = (_HERE / "table.css").read_text(encoding="utf-8")


def to_html(table: Table) -> str:
    """The table as a page, which needs nothing from elsewhere."""
    return str(_render("table_page.html", title=table.title, style=Markup(STYLE), table=html_table(table)))


def html_table(table: Table, *, verdict: bool = True) -> Markup:
    """The table with its warnings and notes, and its `verdict` before it, for a page that has `STYLE`."""
    return _render("table.html", table=table, arrows=ARROWS, verdict=verdict)


def _render(template: str, **values: object) -> Markup:
    return Markup(templates(_HERE).get_template(template).render(**values))


def templates(directory: Path) -> Environment:
    """The templates of a directory; all text in them is escaped."""
    return Environment(
        loader=FileSystemLoader(directory),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
