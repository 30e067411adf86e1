"""Means, uncertainties, tests and comparisons of rows."""
