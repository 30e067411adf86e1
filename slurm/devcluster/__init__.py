"""A real Slurm on one machine with simulated GPUs, for trials of mmkd and for tests. See docs/devcluster.md."""

from slurm.devcluster.bring_up import attach, up
from slurm.devcluster.configuration import can_limit_by_cgroup
from slurm.devcluster.options import ClusterError, Options, Refused
from slurm.devcluster.running_cluster import DevCluster

__all__ = ["ClusterError", "DevCluster", "Options", "Refused", "attach", "can_limit_by_cgroup", "up"]
