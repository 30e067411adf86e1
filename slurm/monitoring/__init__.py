"""What `slurm/monitor.py` shows: read from files and squeue, reckoned, drawn. Nothing here writes.

One step a module: `trials` and `rows` read files, `collecting` remembers what cannot change, `queueing` asks Slurm,
`picture` joins all that, `reckoning` says what is left, `screen` draws it and `export` gives it to programs.
"""
