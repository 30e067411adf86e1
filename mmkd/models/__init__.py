"""Teachers, students and pairings."""
