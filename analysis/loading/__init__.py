"""Read trial directories into data frames."""
