"""The kinds of error bars. Light to import: --help lists them."""

from __future__ import annotations

from typing import Literal

Error = Literal["sd", "sem", "ci"]

ERRORS: dict[Error, str] = {
    "sd": "sample standard deviation (n - 1)",
    "sem": "standard error of the mean (sample standard deviation / sqrt(n))",
    "ci": "half of the 95 % confidence interval of the mean (Student's t)",
}
"""The value behind a mean's ±, in words."""
