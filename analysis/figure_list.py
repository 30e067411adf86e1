"""The figures of a study and the formats of their files. Light to import: --help lists them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

FileFormat = Literal["pdf", "svg", "png"]
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
METADATA: dict[FileFormat, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
"""Left out of the files, so that equal figures give equal bytes."""


class Figure(NamedTuple):
    """A figure's heading and caption in the report."""

    title: str
    caption: str


_CURVES = (
    "Final runs over epochs: a thin line per seed, their mean, and a band of one sample standard deviation; a dot at "
    "the epoch whose weights were kept; the control is grey and dashed."
)
FIGURES = {
    "learning-loss": Figure("Learning curves: validation loss", _CURVES),
    "learning-accuracy": Figure("Learning curves: validation accuracy", _CURVES),
    "best-trials": Figure(
        "Best so far against trials",
        "The best validation value so far against the number of trials; crosses are trials without a value.",
    ),
    "best-hours": Figure(
        "Best so far against time",
        "The best validation value so far against the hours of trials, without the teachers'; crosses are trials "
        "without a value.",
    ),
    "importance": Figure(
        "Hyperparameter importance",
        "PED-ANOVA on the best quarter of the trials; a bar within the grey shows nothing.",
    ),
    "slices": Figure("Slices", "The validation value against each hyperparameter; colours are numbers of trials."),
    "parallel": Figure(
        "Parallel coordinates", "One line per trial over all hyperparameters; dotted if it has no value."
    ),
    "forest": Figure(
        "Differences to the control",
        "Test accuracy minus the control's, with the table's 95 % intervals; filled if Holm's p is below 5 %.",
    ),
    "table": Figure(
        "Table with forest plot",
        "The table's scores and differences, with their 95 % intervals; filled if Holm's p is below 5 %.",
    ),
    "confusion": Figure("Confusion matrices", "On test, summed over final runs, in shares of the true class."),
    "attention": Figure(
        "Attention maps",
        "One test sample, mean over heads. Above a map: the Jensen-Shannon divergence to the teacher's maps over the "
        "whole test split, in bits.",
    ),
}
"""By name, in the order in which they are drawn; see docs/figures.md."""
IN_REPORT = tuple(name for name in FIGURES if name != "table")
"""The report's figures by default: it has the table as text."""
