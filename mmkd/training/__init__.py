"""The shared trainer: a teacher and a student are trained by the same loop."""
