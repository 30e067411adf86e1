"""Where jobs run: the backend that a launch asks for, and the one that an earlier launch used."""

from __future__ import annotations

import argparse
import shutil

from mmkd.errors import UserError
from slurm.accounting import NoAnswer, ask
from slurm.backend import Backend, SubmissionRefused
from slurm.cluster import SlurmBackend
from slurm.local import DebugBackend, LocalBackend, usable_cores, visible_gpus
from slurm.settings import SlurmSettings
from sweeps.site_file import Site


def choose_cluster(wanted: str) -> str:
    """slurm, local or debug; `auto` is Slurm on a machine of a cluster.

    Raises:
        UserError: the machine has Slurm, which does not answer.
    """
    if wanted in ("local", "debug") or (wanted == "auto" and shutil.which("sbatch") is None):
        return wanted if wanted == "debug" else "local"
    try:
        ask("sinfo", "-h", "-o", "%P")
    except NoAnswer as error:
        if wanted == "auto" and "config" in str(error).lower():
            return "local"  # installed, but this machine is of no cluster
        said = str(error).replace("\n", "; ")
        raise UserError(f"Slurm does not answer ({said}); try again later, or --cluster local runs here") from None
    return "slurm"


def slurm_backend(settings: SlurmSettings) -> SlurmBackend:
    """The Slurm backend.

    Raises:
        UserError: this machine has no Slurm.
    """
    try:
        return SlurmBackend(settings)
    except SubmissionRefused as refusal:
        raise UserError(f"--cluster slurm: {refusal}") from None


def choose_backend(options: argparse.Namespace, site: Site) -> tuple[Backend, int]:
    """The backend and its number of slots.

    Raises:
        UserError: it is not to be had.
    """
    from mmkd import trial  # torch: not before it is needed

    cluster = choose_cluster(options.cluster)
    if cluster == "slurm":
        return slurm_backend(site.slurm), site.parallel
    gpus = [] if options.device == "cpu" else visible_gpus()
    if options.device == "cuda" and not gpus:
        raise UserError("--device cuda: nvidia-smi shows no GPU on this machine; use --device auto or cpu")
    if cluster == "debug":
        return DebugBackend(trial.main), 1
    return LocalBackend(gpus), options.parallel or len(gpus) or min(usable_cores(), 4)


def past_backend(name: str, gpus: int, site: Site, *, poll: float) -> Backend:
    """The backend that an earlier launch submitted jobs to, to watch and end them: each had `gpus` GPUs.

    Args:
        name: as the attempts' records have it.
        gpus: what their GPU-seconds are reckoned by.
        site: the site as it is now.
        poll: seconds between questions to Slurm.

    Raises:
        UserError: this machine cannot reach it.
    """
    if name == "local":
        return LocalBackend(["0"] * gpus)
    if name != "slurm":
        raise UserError(f"an attempt was recorded on backend {name!r}, which this mmkd does not know")
    choose_cluster("slurm")
    backend = slurm_backend(site.slurm.model_copy(update={"poll": poll}))
    backend.gpus = gpus
    return backend
