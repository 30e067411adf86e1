"""A real Slurm on this one machine, with pretend GPUs: for trying and for tests. See docs/devcluster.md."""

from slurm.devcluster.cluster import DevCluster, attach, default_folder, up
from slurm.devcluster.options import ClusterError, Options, Refused

__all__ = ["ClusterError", "DevCluster", "Options", "Refused", "attach", "default_folder", "up"]
