"""From trial directories to tables: `to_text(table(load("runs"), "table1"))`. No training code, nothing that submits.

`reading`, `cache` and `loading` read what is on disk into frames, `records` what the controller wrote of studies, and
`predictions` what trials predicted; `evidence` collects a study's rows. `uncertainty` and `comparisons` have the
statistics, `scores` applies them to rows, `guards` finds what makes rows unlike each other. `tables`, `cells` and
`captions` make the neutral model in `model`; `text`, `markup`, `latex` and `tidy` write it. `comparing` and `classes`
look closer at rows, `doctor` at a whole root. Figures are in `figures`, subcommands in `commands`.

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
    from analysis.tables.formats import to_csv, to_html, to_json, to_latex, to_markdown, to_text

__all__ = [
    "compare",
    "examine",
    "load",
    "per_class",
    "table",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_text",
]

_MODULES = {
    "compare": "tables.comparison",
    "examine": "doctor",
    "load": "loading.runs",
    "per_class": "stats.per_class",
    "table": "tables.ablation",
    **dict.fromkeys((name for name in __all__ if name.startswith("to_")), "tables.formats"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(f"analysis.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
