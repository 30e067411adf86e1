"""Where jobs run: this machine, and Slurm. Nothing else knows of either."""
