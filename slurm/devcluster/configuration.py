"""Configuration files, ports and memory cgroup of a cluster. Checked with Slurm 22.05."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from slurm.devcluster.options import Options

SLURM_CONF = """\
# Written by slurm.devcluster; do not edit.
ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/spool/%n.pid
# For containers: no real devices, and cgroups only for memory, on request.
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
MpiDefault=none
SlurmdParameters=config_overrides
# Faults are noticed soon, and nodes return by themselves.
ReturnToService=2
SlurmdTimeout=15
KillWait=5
# As on most sites. With one, a node reports the end of a job at once; without one, Slurm checks every second.
Epilog=/bin/true
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
{memory_limit}
{accounting}
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{slurmd_first}-{slurmd_last}] CPUs={cpus} \
RealMemory={memory} {gres}
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL PriorityTier=10
"""

# AccountingStoragePass is the munge socket of Slurm's clients when they talk to slurmdbd.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={directory}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos"""

CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint={directory}/cgroup
ConstrainRAMSpace=yes
"""

SLURMDBD_CONF = """\
# Written by slurm.devcluster; do not edit.
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser=root
PidFile={directory}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""

INIT_SQL = """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1';
ALTER USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';
"""

MEMORY_HIERARCHY = Path("/sys/fs/cgroup/memory")


def daemon_ports(first: int, options: Options) -> dict[str, int]:
    """The TCP port on 127.0.0.1 of each daemon, consecutive from `first`."""
    return {name: first + k for k, name in enumerate(("mariadbd", "slurmdbd", "slurmctld", *options.node_names))}


def free_ports(directory: Path, options: Options) -> dict[str, int]:
    """A free block of ports, always the same for a directory while it stays free.

    It is below Linux's range for outgoing connections, so a restarted daemon finds its port free.
    """
    start = zlib.crc32(str(directory).encode()) % 200
    for attempt in range(200):
        ports = daemon_ports(11000 + (start + attempt) % 200 * 100, options)
        if all(map(_is_free, ports.values())):
            return ports
    raise OSError("no block of free TCP ports between 11000 and 31000")


def write_configuration(directory: Path, options: Options, ports: Mapping[str, int]) -> None:
    """Write all files that the daemons read into `directory`; keep what the daemons wrote."""
    for name in ("state", "spool", "gpus", "log", *(f"spool/{node}" for node in options.node_names)):
        (directory / name).mkdir(exist_ok=True)
    (directory / "slurm.conf").write_text(_slurm_conf(directory, options, ports))
    (directory / "gres.conf").write_text(
        "".join(f"Name=gpu File={device}\n" for device in _devices(directory, options))
    )
    if options.cgroup:
        _link_memory_cgroup(directory)
        (directory / "cgroup.conf").write_text(CGROUP_CONF.format(directory=directory))
    if not (directory / "munge.key").exists():
        _write_secret(directory / "munge.key", secrets.token_bytes(128))
    if options.accounting:
        password = secrets.token_hex(16)
        parameters = {"slurmdbd_port": ports["slurmdbd"], "mariadbd_port": ports["mariadbd"], "directory": directory}
        _write_secret(directory / "slurmdbd.conf", SLURMDBD_CONF.format(password=password, **parameters).encode())
        _write_secret(directory / "init.sql", INIT_SQL.format(password=password).encode())


def memory_cgroup(directory: Path) -> Path:
    """The kernel's directory for memory limits of the cluster's jobs; one per cluster, as each has a node n1."""
    return MEMORY_HIERARCHY / f"devcluster-{zlib.crc32(str(directory).encode()):08x}"


def can_limit_by_cgroup() -> bool:
    """True if `Options.cgroup` works on this machine."""
    return (MEMORY_HIERARCHY / "release_agent").exists() and os.access(MEMORY_HIERARCHY, os.W_OK)


def remove_memory_cgroup(directory: Path) -> None:
    """Remove the cgroups of `Options.cgroup`, which must hold no process."""
    for cgroup, _, _ in os.walk(memory_cgroup(directory), topdown=False):
        _remove_cgroup(Path(cgroup))


def _remove_cgroup(cgroup: Path, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while cgroup.exists():
        try:
            cgroup.rmdir()
        except OSError as error:
            # Busy for a moment after its last process was killed.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _slurm_conf(directory: Path, options: Options, ports: Mapping[str, int]) -> str:
    return SLURM_CONF.format(
        host=socket.gethostname().split(".")[0],
        directory=directory,
        slurmctld_port=ports["slurmctld"],
        slurmd_first=ports["n1"],
        slurmd_last=ports[options.node_names[-1]],
        nodes=options.nodes,
        cpus=options.cpus_per_node,
        memory=options.memory_per_node,
        memory_per_cpu=options.memory_per_node // options.cpus_per_node,
        task_plugin="task/cgroup" if options.cgroup else "task/none",
        memory_limit="" if options.cgroup else "JobAcctGatherParams=OverMemoryKill",
        gres=f"Gres=gpu:{options.gpus_per_node}" if options.gpus_per_node else "",
        grace=options.grace,
        accounting=ACCOUNTING.format(port=ports["slurmdbd"], directory=directory) if options.accounting else "",
    )


def _devices(directory: Path, options: Options) -> list[Path]:
    """Create the simulated GPUs: character devices like /dev/null, as Slurm refuses plain files or only a count."""
    devices = [directory / "gpus" / f"gpu{number}" for number in range(options.gpus_per_node)]
    for device in devices:
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return devices


def _link_memory_cgroup(directory: Path) -> None:
    memory_cgroup(directory).mkdir(exist_ok=True)
    (directory / "cgroup").mkdir(exist_ok=True)
    link = directory / "cgroup" / "memory"
    link.unlink(missing_ok=True)
    link.symlink_to(memory_cgroup(directory))


def _write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_bytes(content)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
