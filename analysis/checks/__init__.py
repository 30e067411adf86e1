"""Checks of a study's rows, one concept per module; `analysis.tables.checks` runs those of a table, `doctor` all."""
