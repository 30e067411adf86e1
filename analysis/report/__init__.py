"""The report: everything about studies in one HTML file that needs nothing from elsewhere.

`page` puts it together and renders `page.html` with `page.css`; `drawings` makes the figures, `origins` says what ran
where, `configurations` lists every trial.
"""

from analysis.report.page import report

__all__ = ["report"]
