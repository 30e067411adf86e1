"""A real Slurm on this one machine, with pretend GPUs: for trying and for tests. See docs/devcluster.md."""

from slurm.devcluster.bring_up import attach, up
from slurm.devcluster.cluster import DevCluster
from slurm.devcluster.configuration import can_limit_by_cgroup
from slurm.devcluster.options import ClusterError, Options, Refused

__all__ = ["ClusterError", "DevCluster", "Options", "Refused", "attach", "can_limit_by_cgroup", "up"]
