"""The live view of a root's studies: `python slurm/monitor.py`. It reads files and asks squeue; it never writes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmkd.command import Parser, run_command, study_name

EXAMPLES = """examples:
  %(prog)s --study crd_attention          a live view; q or Ctrl-C quits, which affects no job
  %(prog)s --log crd/trials/3             also the end of the log of row crd's trial 3
  %(prog)s --once | less                  everything, once, as plain text
  %(prog)s --json | jq .eta.seconds       for programs; docs/monitor.md has the keys
Anyone who can read the root can watch. The monitor writes nothing and runs squeue at most every 30 s."""


PROG = "python slurm/monitor.py"


def make_parser(prog: str = PROG) -> Parser:
    """The command line."""
    parser = Parser(
        prog=prog,
        description="Watch studies: progress, remaining time, queue, trials, best values, GPU-hours, failures, logs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="directory of the studies (default: ./runs)")
    parser.add_argument("--study", type=study_name, metavar="NAME", help="a name in ROOT/studies/*.json (default: all)")
    parser.add_argument("--log", metavar="ROW/trials/N", help="show the end of this trial's log; also ROW/confirm/SEED")
    parser.add_argument("--each-replicate", action="store_true", help="one line for each replicate of a row")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--once", action="store_true", help="print everything once (the default if standard output is not a terminal)"
    )
    how.add_argument("--json", action="store_true", help="print everything once as JSON")
    return parser


def watch(options: argparse.Namespace) -> int:
    """Watch what the options name, live on a terminal, else once."""
    # Imported late: these would make up most of the time of --help.
    from mmkd.rundir import Root
    from slurm.monitoring.live import show

    how = {"once": options.once, "as_json": options.json, "each_replicate": options.each_replicate}
    show(Root.at(options.root), options.study, options.log, **how)
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """The command. Ctrl-C is how a user leaves it."""
    return run_command(make_parser(prog), watch, arguments, interrupted=0)


if __name__ == "__main__":
    sys.exit(main())
