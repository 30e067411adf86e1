"""The report: everything about studies in one HTML file that needs nothing from elsewhere.

`page` assembles it and renders `page.html` with `page.css`; `drawings` makes the figures, `origins` has the
provenance, `configurations` lists every trial.
"""

from analysis.report.page import report

__all__ = ["report"]
