"""Importers of foreign data sets, one file per source."""
