"""Provenance of a run: versions, commit and host, and nothing secret of the environment."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mmkd.errors import UserError
from mmkd.records import SnapshotRecord, find_record

PACKAGES = ("mmkd", "torch", "numpy", "h5py", "triton")
SOURCE = Path(__file__).parent
"""The code that trials run."""
SNAPSHOT = "snapshot.json"
"""The file beside the packages of a copy of the code that names its origin (see `sweeps.actions.snapshot`)."""


def source_digest(directory: Path = SOURCE) -> str:
    """Hash of a package, 12 hex digits: the names and contents of all its modules."""
    hashed = hashlib.sha256()
    for path in sorted(directory.rglob("*.py")):
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(directory).as_posix()}\0{len(content)}\0".encode() + content)
    return hashed.hexdigest()[:12]


def working_tree() -> tuple[str, str] | None:
    """The commit of the code, and a patch of what differs from it, new modules included.

    None if the code is not part of a git working tree, or git is missing.
    """

    def git(*arguments: str, good: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=20)
        if done.returncode not in good:
            raise subprocess.SubprocessError(done.stderr)
        return done.stdout

    directory = SOURCE
    try:
        if not git("ls-files", "--", "__init__.py"):
            return None  # an installed copy, or a snapshot, below somebody's working tree
        commit, top, prefix = git("rev-parse", "HEAD", "--show-toplevel", "--show-prefix").splitlines()
        directory, modules = Path(top), f"{prefix}*.py"
        plain = ("diff", "--no-color", "--no-ext-diff")
        patch = git(*plain, "HEAD", "--", modules)
        for name in git("ls-files", "-z", "--others", "--exclude-standard", "--", modules).split("\0")[:-1]:
            patch += git(*plain, "--no-index", "--", os.devnull, name, good=(0, 1))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return commit, patch


def snapshot_origin(package: Path) -> SnapshotRecord | None:
    """The origin of a copy of the code, by the path of its mmkd package; None if it is no snapshot."""
    return find_record(package.parent / SNAPSHOT, SnapshotRecord)


def git_commit() -> dict[str, str]:
    """The commit of the code, and a hash of what differs from it ("" if nothing); empty if unknown."""
    origin = snapshot_origin(SOURCE)
    if origin is not None:
        return dict(origin.git)
    tree = working_tree()
    return {} if tree is None else {"commit": tree[0], "diff": patch_digest(tree[1])}


def patch_digest(patch: str) -> str:
    """Hash of a patch, 12 hex digits; "" if it is empty."""
    return hashlib.sha256(patch.encode()).hexdigest()[:12] if patch else ""


@cache
def loaded_code() -> dict[str, Any]:
    """Hash and commit of the code of this process, by the files at the first call."""
    return {"code": source_digest(), "git": git_commit()}


def refuse_other_code(sent_with: str | None) -> None:
    """Refuse to run other code than the controller sent the trial with.

    An edit of the same directory is allowed: the controller warns of it.

    Raises:
        UserError: this process has imported mmkd from elsewhere.
    """
    expected, _, directory = (sent_with or "").partition("@")
    if not expected or Path(directory) == SOURCE or (found := str(loaded_code()["code"])) == expected:
        return
    raise UserError(
        f"{SOURCE}: this job imported mmkd from here (code {found}), and was sent with {directory} (code {expected}): "
        f"its environment was changed on the way (PYTHONPATH is {os.environ.get('PYTHONPATH')!r}); look at setup, "
        f"prefix (--cleanenv) and extra (export)"
    )


def gpus_given() -> str:
    """The GPUs given to this job, as NAME=VALUE of Slurm's or CUDA's variable; "" if none."""
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "CUDA_VISIBLE_DEVICES"):
        value = os.environ.get(name, "")
        if value not in ("", "-1", "NoDevFiles"):  # the last is Slurm's for none
            return f"{name}={value}"
    number = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    return "" if number in ("", "0") else f"SLURM_GPUS_ON_NODE={number}"


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
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        **loaded_code(),
    }


def _version(package: str) -> str:
    """An installed package's version; empty if it is not installed, as Triton need not be."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
