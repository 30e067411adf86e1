"""Who ran what, where: versions, commit and host, and nothing secret of the environment."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mmkd", "torch", "numpy", "h5py")


def git_commit() -> dict[str, str]:
    """The working tree that the code comes from: its commit, and a hash of what differs from it ("" if nothing).

    Empty where the code is not in a git working tree, or git is missing.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        changes = git("diff", "HEAD", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "diff": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else ""}


def describe_process(device: str) -> dict[str, Any]:
    """Host, process and versions of this job."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device,
        # Slurm's name of this node, which sbatch's --exclude takes.
        **({"node": os.environ["SLURMD_NODENAME"]} if "SLURMD_NODENAME" in os.environ else {}),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "git": git_commit(),
    }
