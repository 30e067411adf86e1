"""From trial directories to tables: `to_text(table(load("runs"), "table1"))`. No training code, nothing that submits.

`records` and `loading` read what is on disk; `evidence` collects a study's rows; `uncertainty` has the statistics (and
is where corrected tests belong); `tables` and `captions` make the neutral model in `model`; `rendering` has one
function a format. A figure is a module of its own beside these, a subcommand one of `commands`.

The names below are imported when they are first used: `python -m analysis --help` needs no pandas, and a table no
matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.loading import load
    from analysis.rendering import to_markdown, to_text
    from analysis.tables import table

__all__ = ["load", "table", "to_markdown", "to_text"]

_MODULES = {"load": "loading", "table": "tables", "to_markdown": "rendering", "to_text": "rendering"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(f"analysis.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
