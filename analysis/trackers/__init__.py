"""Export a root's runs to experiment trackers.

`tracked_run` makes the same description of each run for all trackers; one module per tracker writes it. A tracker's
module has `VIEW`, a command that shows what was written, and `exporter`, which takes the target directory. Only these
modules import the tracker's package.
"""
