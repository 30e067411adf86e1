"""Measure trained networks: inference cost, and accuracy with modalities missing."""
