"""Bring a cluster up from its options, or attach to a running one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

from slurm.devcluster.configuration import can_limit_by_cgroup, daemon_ports, free_ports, write_configuration
from slurm.devcluster.options import ClusterError, Options, Refused, claim_directory, default_directory, directory_lock
from slurm.devcluster.packages import PATH, require
from slurm.devcluster.processes import daemon_processes, end, tail
from slurm.devcluster.running_cluster import DevCluster


def up(options: Options, directory: Path | None = None, *, fresh: bool = False) -> DevCluster:
    """Start a cluster, or repair the one that is up. Return when it takes jobs and accounting answers.

    Its state (job ids, accounting) survives `down`; `fresh` deletes it.

    Raises:
        Refused: this machine is unsuitable, or the cluster runs with other options.
        ClusterError: a daemon did not start.
    """
    directory = (directory or default_directory()).absolute()
    _refuse_this_machine(options)
    claim_directory(directory)
    require(options.accounting)
    with directory_lock(directory):
        cluster = _recorded(directory)
        if cluster is not None and fresh:
            cluster.shut_down()
        if cluster is None or not cluster.running_daemons():
            cluster = _prepare(directory, options, fresh)
        elif cluster.options != options:
            raise Refused(
                f"{directory}: runs with {cluster.options.as_words()}; take it down first, or ask for the same"
            )
        cluster.start_all()
    return cluster


def attach(directory: Path | None = None) -> DevCluster:
    """The cluster in `directory`, running or not.

    Raises:
        Refused: there is none.
    """
    directory = (directory or default_directory()).absolute()
    cluster = _recorded(directory)
    if cluster is None:
        raise Refused(f"--folder {directory}: no cluster was brought up here (python -m slurm.devcluster up)")
    return cluster


def _refuse_this_machine(options: Options) -> None:
    if os.geteuid() != 0:
        raise Refused("a development cluster needs root: use a container or your own machine")
    if Path("/etc/slurm/slurm.conf").exists():
        raise Refused("/etc/slurm/slurm.conf: this machine already has a Slurm; use that one")
    if options.cgroup and not can_limit_by_cgroup():
        raise Refused("--cgroup: cgroup v1's memory hierarchy is missing or not writable; omit --cgroup")


def _recorded(directory: Path) -> DevCluster | None:
    try:
        record = json.loads((directory / "cluster.json").read_text())
        options = Options(**record["options"])
        return DevCluster(directory, options, daemon_ports(record["first_port"], options))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"--folder {directory}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{directory / 'cluster.json'}: damaged ({error}); remove the directory's files") from None


def _prepare(directory: Path, options: Options, fresh: bool) -> DevCluster:
    """Write the files of a cluster that is not running."""
    end(daemon_processes(directory))  # of a cluster whose record was deleted while it ran
    if fresh:
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
    ports = free_ports(directory, options)
    write_configuration(directory, options, ports)
    if options.accounting and not (directory / "mysql").exists():
        _make_database(directory)
    temporary = directory / ".cluster.json"
    temporary.write_text(json.dumps({"options": asdict(options), "first_port": ports["mariadbd"]}, indent=2) + "\n")
    temporary.replace(directory / "cluster.json")
    return DevCluster(directory, options, ports)


def _make_database(directory: Path) -> None:
    log, unfinished = directory / "log" / "mariadb-install-db.log", directory / "mysql.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    with log.open("wb") as output:
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={unfinished}", "--skip-test-db"],
            env={**os.environ, "PATH": PATH},
            stdout=output,
            stderr=output,
        )
    if made.returncode:
        raise ClusterError(f"mariadb-install-db failed; {log}:\n{tail(log)}")
    unfinished.rename(directory / "mysql")
