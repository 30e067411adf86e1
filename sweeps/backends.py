"""Where jobs run: the backend that a launch asks for, and the one that an earlier launch used."""

from __future__ import annotations

import argparse
import shutil
from typing import NoReturn

from mmkd.errors import UserError
from mmkd.terminal import one_line
from slurm.accounting import NoAnswer, ask
from slurm.backend import Backend, SubmissionRefused
from slurm.cluster import SlurmBackend
from slurm.local import DebugBackend, LocalBackend, usable_cores, visible_gpus
from slurm.settings import SlurmSettings
from sweeps.site_file import Site


def choose_cluster(options: argparse.Namespace) -> str:
    """slurm, local or debug; `auto` is Slurm where an option asks for it, and on a machine of a cluster.

    Raises:
        UserError, ConnectionError: Slurm is asked for, or this is a machine of a cluster, and it does not answer.
    """
    if options.cluster in ("local", "debug"):
        return str(options.cluster)
    asking = option_for_slurm(options)
    if not asking and shutil.which("sbatch") is None:
        return "local"
    try:
        ask("sinfo", "-h", "-o", "%P")
    except NoAnswer as error:
        if not asking and error.of_no_cluster:
            return "local"  # installed, but this machine is of no cluster
        refuse_without_slurm(asking, error, "; --cluster local runs here")
    return "slurm"


def option_for_slurm(options: argparse.Namespace) -> str:
    """The option of the command line that asks for Slurm, "" where none does.

    `[slurm]` in a site file does not: it may be the user's own file, read on every machine.
    """
    if options.cluster == "slurm":
        return "--cluster slurm"
    given = (f"--slurm.{name}" for name in SlurmSettings.model_fields if getattr(options, f"slurm_{name}") is not None)
    return "--detach" if options.detach else next(given, "")


def refuse_without_slurm(asking: str, error: NoAnswer, instead: str = "") -> NoReturn:
    """End a command that needs Slurm, with Slurm's words.

    Args:
        asking: the option that needs it, "" where none does.
        error: what Slurm's command said.
        instead: how to do without.

    Raises:
        UserError: this machine is of no cluster.
        ConnectionError: the scheduler is down.
    """
    kind = UserError if error.of_no_cluster else ConnectionError
    raise kind(f"{asking}{': ' if asking else ''}Slurm does not answer ({one_line(error)}){instead}") from None


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
        UserError, ConnectionError: it is not to be had.
    """
    from mmkd import trial  # torch: not before it is needed

    cluster = choose_cluster(options)
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
        UserError, ConnectionError: this machine cannot reach it.
    """
    if name == "local":
        return LocalBackend(["0"] * gpus)
    if name != "slurm":
        raise UserError(f"an attempt was recorded on backend {name!r}, which this mmkd does not know")
    try:
        ask("sinfo", "-h", "-o", "%P")
    except NoAnswer as error:
        refuse_without_slurm("jobs of Slurm", error)
    backend = slurm_backend(site.slurm.model_copy(update={"poll": poll}))
    backend.gpus = gpus
    return backend
