"""Teachers, students, and what pairs them."""
