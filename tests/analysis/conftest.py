"""Roots as launches leave them, as fixtures."""

from roots import ablation, finished, lab

__all__ = ["ablation", "finished", "lab"]
