"""Debian packages of Slurm's daemons: check and install them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from slurm.devcluster.options import ClusterError, Refused

PROVIDES = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "squeue"),
    "munge": ("munged", "munge"),
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb-install-db"),
}
FOR_ACCOUNTING = ("slurmdbd", "mariadb-server")
INSTALLING = Path("/run/slurm-devcluster-install.lock")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""With the daemons' directories, which a user's PATH often lacks."""


def missing_packages(accounting: bool) -> list[str]:
    """Packages that a cluster needs and that are not installed."""
    wanted = [package for package in PROVIDES if accounting or package not in FOR_ACCOUNTING]
    return [p for p in wanted if not all(shutil.which(program, path=PATH) for program in PROVIDES[p])]


def can_install() -> bool:
    """True for root on Debian or Ubuntu, where `install` works."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(packages: list[str]) -> None:
    """Install `packages` with apt-get, and stop the services that systemd then starts.

    Raises:
        ClusterError: apt-get failed; the message holds its last lines.
    """
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            last_lines = "\n".join(done.stdout.strip().splitlines()[-15:])
            raise ClusterError(f"{' '.join(command)} failed:\n{last_lines}")
    if Path("/run/systemd/system").is_dir():
        services = {"munge": "munge", "mariadb-server": "mariadb", "slurmdbd": "slurmdbd"}
        for package in services.keys() & set(packages):
            subprocess.run(["systemctl", "disable", "--now", services[package]], capture_output=True)


def require(accounting: bool) -> None:
    """Install missing packages if possible, after saying so.

    Raises:
        Refused: they are missing, and this is not root on Debian or Ubuntu.
    """
    missing = missing_packages(accounting)
    if not missing:
        return
    if not can_install():
        raise Refused(
            f"missing: {', '.join(missing)} (Debian's package names); install them, "
            "or run this as root on Debian or Ubuntu, which installs them"
        )
    with INSTALLING.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if missing := missing_packages(accounting):  # unless another process has just installed them
            print(f"installing {', '.join(missing)} with apt-get", file=sys.stderr, flush=True)
            install(missing)
