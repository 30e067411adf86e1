"""The steps of `slurm/monitor.py`, one per module. Nothing here writes.

`trials` and `rows` read files, `collecting` remembers what cannot change, `squeue_polling` asks Slurm, `watching` joins
a trial with its job, `overview` counts, `remaining` estimates, `screen` draws it and `export` makes JSON.
"""
