"""The cluster's files: where they lie and what stands in them. Checked with Slurm 22.05."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from slurm.devcluster.options import Options

SLURM_CONF = """\
# Written by slurm.devcluster; do not edit.
ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/spool/%n.pid
# No cgroups, no real devices: it must run in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
# Faults are seen soon, and nodes come back by themselves.
ReturnToService=2
SlurmdTimeout=15
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{slurmd_first}-{slurmd_last}] CPUs={cpus} \
RealMemory={memory} {gres}
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL PriorityTier=10
"""

# AccountingStoragePass is where Slurm's clients look for munge when they talk to slurmdbd.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos"""

SLURMDBD_CONF = """\
# Written by slurm.devcluster; do not edit.
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
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


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, `first` and the ones after it; node number k (from 1) listens on `slurmd(k)`."""

    first: int

    @property
    def mariadbd(self) -> int:
        """The database's."""
        return self.first

    @property
    def slurmdbd(self) -> int:
        """Accounting's."""
        return self.first + 1

    @property
    def slurmctld(self) -> int:
        """The controller's."""
        return self.first + 2

    def slurmd(self, number: int) -> int:
        """A node's."""
        return self.first + 2 + number


def free_ports(folder: Path, nodes: int) -> Ports:
    """A block of ports that nobody listens on, the same for a folder as long as it stays free.

    Below the range that Linux gives to outgoing connections: a daemon that was stopped finds its port again.
    """
    start = zlib.crc32(str(folder).encode()) % 200
    for attempt in range(200):
        ports = Ports(11000 + (start + attempt) % 200 * 100)
        if all(_is_free(port) for port in range(ports.first, ports.slurmd(nodes) + 1)):
            return ports
    raise OSError("no block of free TCP ports between 11000 and 31000")


def write_configuration(folder: Path, options: Options, ports: Ports) -> None:
    """Fill `folder` with all that the daemons read; what they wrote there themselves stays."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool", "gpus", "log", *(f"spool/{node}" for node in options.node_names)):
        (folder / name).mkdir(exist_ok=True)
    devices = folder / "gpus"
    for number in range(options.gpus_per_node):
        if not (devices / f"gpu{number}").exists():
            # A character device, as /dev/null is: Slurm refuses plain files and a mere count.
            os.mknod(devices / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    accounting = ACCOUNTING.format(port=ports.slurmdbd, folder=folder) if options.accounting else ""
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            host=host,
            folder=folder,
            slurmctld_port=ports.slurmctld,
            slurmd_first=ports.slurmd(1),
            slurmd_last=ports.slurmd(options.nodes),
            nodes=options.nodes,
            cpus=options.cpus_per_node,
            memory=options.memory_per_node,
            memory_per_cpu=options.memory_per_node // options.cpus_per_node,
            gres=f"Gres=gpu:{options.gpus_per_node}" if options.gpus_per_node else "",
            grace=options.grace,
            accounting=accounting,
        )
    )
    has_gpus = options.gpus_per_node > 0
    gres = f"Name=gpu File={devices}/gpu[0-{options.gpus_per_node - 1}]\n" if has_gpus else ""
    (folder / "gres.conf").write_text(gres)
    password = secrets.token_hex(16)
    _write_secret(folder / "init.sql", INIT_SQL.format(password=password).encode())
    slurmdbd = SLURMDBD_CONF.format(
        folder=folder, slurmdbd_port=ports.slurmdbd, mariadbd_port=ports.mariadbd, password=password
    )
    _write_secret(folder / "slurmdbd.conf", slurmdbd.encode())
    if not (folder / "munge.key").exists():
        _write_secret(folder / "munge.key", secrets.token_bytes(128))


def _write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
