"""Export a root's runs to experiment trackers.

`tracked_run` makes the same description of each run for all trackers; one module per tracker writes it. A tracker's
module has `VIEW`, a command that shows what was written, and `exporter`, a context
manager that takes the target directory and gives the function that writes one run. Only these
modules import the tracker's package.
"""
