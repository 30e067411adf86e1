"""The directory of a copy of the code, and the environment that runs a job from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mmkd.provenance import SOURCE
from mmkd.rundir import Root

PACKAGES = ("mmkd", "sweeps", "slurm", "analysis")
"""Packages that a controller imports; trials need only the first."""


def code_files(base: Path) -> list[Path]:
    """List the modules and TOML files of the packages under `base`."""
    found = (path for package in PACKAGES for path in (base / package).rglob("*"))
    return sorted(path for path in found if path.suffix in (".py", ".toml"))


def code_digest(base: Path) -> str:
    """Hash the packages under `base`."""
    hashed = hashlib.sha256()
    for path in code_files(base):
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(base).as_posix()}\0{len(content)}\0".encode() + content)
    return hashed.hexdigest()[:12]


def snapshot_directory(root: Root) -> Path:
    """Return the directory for a snapshot of the present code, whether it exists or not."""
    return root.code / code_digest(SOURCE.parent)


def run_from(directory: Path) -> dict[str, str]:
    """Return variables that make Python import the packages in `directory`, whatever the working directory contains."""
    path = os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH", ""))))
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
