"""The command: `python -m slurm.devcluster up|down|status`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from slurm.devcluster.bring_up import attach, up
from slurm.devcluster.options import ClusterError, Options, Refused, default_directory
from slurm.devcluster.running_cluster import DevCluster


def make_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(
        prog="python -m slurm.devcluster",
        description="Run a real Slurm with simulated GPUs on one machine. See docs/devcluster.md.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start a cluster, or repair the running one")
    default = Options()
    start.add_argument("--nodes", type=int, default=default.nodes, metavar="N", help="default: %(default)s")
    start.add_argument(
        "--gpus-per-node", type=int, default=default.gpus_per_node, metavar="N", help="default: %(default)s"
    )
    start.add_argument(
        "--cpus-per-node", type=int, default=default.cpus_per_node, metavar="N", help="default: %(default)s"
    )
    start.add_argument(
        "--memory-per-node",
        type=int,
        default=default.memory_per_node,
        metavar="MB",
        help="enforced limit (default: %(default)s)",
    )
    start.add_argument(
        "--grace",
        type=int,
        default=default.grace,
        metavar="SECONDS",
        help="the partition's GraceTime (default: %(default)s)",
    )
    start.add_argument("--max-submit", type=int, metavar="N", help="limit on a user's jobs in the queue")
    start.add_argument(
        "--cgroup",
        action="store_true",
        help="the kernel enforces memory limits, and Slurm reports OUT_OF_MEMORY, as on real sites",
    )
    start.add_argument(
        "--no-accounting", dest="accounting", action="store_false", help="no slurmdbd, so sacct fails, as on some sites"
    )
    start.add_argument("--fresh", action="store_true", help="delete the cluster's state: job ids start at 1 again")
    stop = commands.add_parser("down", help="cancel all jobs and stop all daemons; keep the files")
    look = commands.add_parser("status", help="print one line per daemon, and the nodes")
    for command in (start, stop, look):
        option = command.add_argument("--folder", dest="directory", type=Path, metavar="DIR")
        option.help = f"the cluster's directory (default: {default_directory()})"
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 success, 1 failure, 2 refused."""
    chosen = make_parser().parse_args(arguments)
    try:
        match chosen.command:
            case "up":
                _up(chosen)
            case "down":
                attach(chosen.directory).down()
            case _:
                return _status(attach(chosen.directory))
    except (Refused, ClusterError) as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    return 0


def _up(chosen: argparse.Namespace) -> None:
    options = Options(**{field.name: getattr(chosen, field.name) for field in fields(Options)})
    started = time.monotonic()
    cluster = up(options, chosen.directory, fresh=chosen.fresh)
    print(
        f"up after {time.monotonic() - started:.0f} s: {options.nodes} nodes, "
        f"{options.nodes * options.gpus_per_node} simulated GPUs, partitions gpu and urgent; "
        'Slurm\'s commands need this line, which eval "$(... up)" executes:',
        file=sys.stderr,
    )
    for name, value in cluster.environment.items():
        print(f"export {name}={shlex.quote(value)}")


def _status(cluster: DevCluster) -> int:
    """Print daemons and nodes; return 0 if all daemons run."""
    running = cluster.running_daemons()
    for name in cluster.daemons:
        state = f"running  {running[name].pid}" if name in running else "not running"
        print(f"{name:10} {state}")
    if "slurmctld" in running:
        print(" ".join(f"{node}:{state}" for node, state in cluster.nodes().items()))
    return 0 if len(running) == len(cluster.daemons) else 1


if __name__ == "__main__":
    sys.exit(main())
