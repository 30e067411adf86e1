"""The subcommands of `python -m analysis`, one module each.

A module has `add_command(subparsers)`, which adds one parser and sets its default `run` to a function from the parsed
options to the exit code. What is slow to import (pandas, scipy, matplotlib, torch) is imported by `run`, so that
`--help` is quick.
"""
