"""Backends for jobs: processes of this machine, and Slurm. No other package knows of either."""
