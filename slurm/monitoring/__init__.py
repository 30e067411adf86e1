"""The steps of `slurm/monitor.py`, one per module. Nothing here writes.

`trials` and `rows` read files, `collecting` remembers what cannot change, `watching` asks Slurm and joins a trial with
its job, `overview` counts, `remaining` estimates, `screen` draws, `export` makes JSON, and `live` runs it all.
"""
