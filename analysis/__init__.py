"""From trial directories to tables: `to_text(table(load("runs"), "table1"))`. No training code, nothing that submits.

`records` and `loading` read what is on disk; `evidence` collects a study's rows; `uncertainty` has the statistics (and
is where corrected tests belong); `tables` and `captions` make the neutral model in `model`; `rendering` has one
function a format (LaTeX, HTML and CSV belong there, in its FORMATS). A figure is a module of its own beside these.
"""

from analysis.loading import load
from analysis.rendering import to_markdown, to_text
from analysis.tables import table

__all__ = ["load", "table", "to_markdown", "to_text"]
