"""From trial directories to tables: `to_text(table(load("runs"), "table1"))`. No training code, nothing that submits.

Lower packages know nothing of higher ones: `loading` reads trial directories into frames and collects a study's rows;
`stats` has tests and uncertainty; `tables` makes a neutral table (`tables.model`) and writes it in each format, and
compares two rows; `networks` measures trained networks; `doctor` examines a whole root; `trackers` exports runs;
`figures` draws; `report` puts all into one HTML file; `commands` has the subcommands.

The names below are imported when they are first used: `python -m analysis --help` needs no pandas, and a table no
matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.doctor import examine
    from analysis.loading.runs import load
    from analysis.stats.per_class import per_class
    from analysis.tables.ablation import table
    from analysis.tables.comparison import compare
    from analysis.tables.csv_json import to_csv, to_json
    from analysis.tables.data_sets import across
    from analysis.tables.html import to_html
    from analysis.tables.latex import to_latex
    from analysis.tables.markdown import to_markdown
    from analysis.tables.power_forecast import planned_power
    from analysis.tables.text import to_text

__all__ = [
    "across",
    "compare",
    "examine",
    "load",
    "per_class",
    "planned_power",
    "table",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_text",
]

_MODULES = {
    "across": "tables.data_sets",
    "compare": "tables.comparison",
    "examine": "doctor",
    "load": "loading.runs",
    "per_class": "stats.per_class",
    "planned_power": "tables.power_forecast",
    "table": "tables.ablation",
    "to_csv": "tables.csv_json",
    "to_html": "tables.html",
    "to_json": "tables.csv_json",
    "to_latex": "tables.latex",
    "to_markdown": "tables.markdown",
    "to_text": "tables.text",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(f"analysis.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
