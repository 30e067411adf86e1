"""Resolve the command line, the study file, the data and the site file into a `Launch`."""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from mmkd.data import DatasetInfo, make_synthetic, read_info
from mmkd.distillation.facts import keep_facts
from mmkd.errors import UserError, did_you_mean
from mmkd.files import remove_leftovers
from mmkd.records import select_rows
from mmkd.rundir import Root
from mmkd.terminal import is_plain, one_line
from slurm.accounting import NoAnswer, ask
from slurm.backend import Backend, SubmissionRefused
from slurm.local_backend import DebugBackend, LocalBackend, start_process, usable_cores, visible_gpus
from slurm.settings import SlurmSettings
from slurm.slurm_backend import SlurmBackend
from sweeps.controller.local_worker import LocalWorker
from sweeps.controller.slurm_workers import WorkerBackend
from sweeps.launched_study import record_study, table_name
from sweeps.options import changes_in_words, overrides_of, refuse_contradictions, site_changes
from sweeps.planning import Machine, plan
from sweeps.profile_file import load_profile
from sweeps.rows import Row
from sweeps.site_file import Site, load_site
from sweeps.snapshot_path import run_from, snapshot_directory
from sweeps.study_file import StudyFile, find_study, load_study

S = TypeVar("S", bound=SlurmBackend)
SINFO_SECONDS, RETRY_SECONDS = 10.0, 10.0
"""Time limit of the question whether Slurm answers, and between two such questions."""


@dataclass(frozen=True)
class Launch:
    """A resolved launch.

    `name` is the name of the study's record; `rows` are those to run, `all_rows` those of the study; `code` is the
    snapshot that jobs run, None to run the working tree.
    """

    study: StudyFile
    origin: Path
    name: str
    rows: Sequence[Row]
    all_rows: Sequence[Row]
    profile: str
    root: Root
    site: Site
    backend: Backend
    parallel: int
    code: Path | None
    environment: Mapping[str, str]

    def record(self, max_gpu_hours: float | None) -> None:
        """Record the study under the root, and what the next launch need not import methods for."""
        keep_facts(self.root.methods, [row.method for row in self.all_rows])
        record_study(self.root, self.name, self.study, self.all_rows, max_gpu_hours, launched=self.rows)


def prepare(options: argparse.Namespace) -> Launch:
    """Resolve the command line, the study, the data and the site.

    Raises:
        UserError: something is missing or not valid.
    """
    origin = find_study(options.study)
    changes = changes_in_words(options)
    described = f"{origin} with {changes}" if changes else str(origin)
    study = load_study(origin, overrides_of(options), described)
    name = table_name(options, origin)
    site = load_site(options.site, site_changes(options))
    root = Root.at(options.root)
    code = snapshot_directory(root) if options.snapshot else None
    environment = {**({"MMKD_STAGE": "1"} if site.stage else {}), **(run_from(code) if code else {})}
    backend, parallel = choose_backend(options, site, partial(WorkerBackend, site.slurm, root, name, environment))
    environment["MMKD_TRIALS_PER_GPU"] = str(trials_per_gpu(backend, parallel))
    refuse_contradictions(options, backend.name)
    info = open_data(study, root)
    check_primary(study, info)
    profile_name, profile = load_profile(study.profile, info.source)
    threads = threads_of(site.slurm) if backend.name == "slurm" else max(1, usable_cores() // parallel)
    machine = Machine(info.path.absolute(), threads, options.device)
    all_rows = plan(study, described, profile, info, root, machine)
    wanted = select_rows(options.rows, {row.name: row.control for row in all_rows}, study.control)
    rows = [row for row in all_rows if row.name in wanted]
    make_root(root)
    return Launch(study, origin, name, rows, all_rows, profile_name, root, site, backend, parallel, code, environment)


def check_primary(study: StudyFile, info: DatasetInfo) -> None:
    """Check that the data have the student's modality.

    Raises:
        UserError: they do not; lists those that they have.
    """
    if study.primary not in info.modalities:
        hint = did_you_mean(study.primary, info.modalities)
        raise UserError(
            f"{info.path}: the data have no modality {study.primary!r}: "
            f"give --primary {' or '.join(info.modalities)}{hint and '; '}{hint}"
        )


def open_data(study: StudyFile, root: Root) -> DatasetInfo:
    """Open the study's data set; synthetic data are generated on first use.

    Raises:
        UserError: the file is missing, foreign or damaged.
    """
    if not study.data.startswith("synthetic:"):
        return read_info(Path(study.data))
    size = study.data.removeprefix("synthetic:")
    path = root.data(f"synthetic-{size}.h5")
    if not path.exists():
        make_root(root)
        path.parent.mkdir(exist_ok=True)
        remove_leftovers(path.parent, path.name)
        make_synthetic(path, size)  # type: ignore[arg-type]  # checked there
    return read_info(path)


def make_root(root: Root) -> None:
    """Create the root directory.

    Raises:
        UserError: it cannot be created or written, or its path contains characters that sbatch interprets.
    """
    if "\\" in str(root.path) or not is_plain(str(root.path)):
        raise UserError(f"--root {str(root.path)!r}: choose a path without line breaks, control characters and '\\'")
    try:
        root.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root.path) as probe:
            probe.write(b"x")  # a full disk may create a file and still refuse to write to it
    except OSError as error:
        raise UserError(f"--root {root.path}: cannot be written ({error.strerror})") from None


def choose_cluster(options: argparse.Namespace) -> str:
    """Choose slurm, local or debug; `auto` is Slurm if an option requests it or this machine belongs to a cluster.

    Waits while the scheduler of a cluster does not answer, except with --dry-run.

    Raises:
        UserError: Slurm is requested, and this machine has none.
        ConnectionError: --dry-run needs it, and it does not answer.
    """
    if options.cluster in ("local", "debug"):
        return str(options.cluster)
    asking = option_for_slurm(options)
    if not asking and shutil.which("sbatch") is None:
        return "local"
    said = False
    while True:
        try:
            ask("sinfo", "-h", "-o", "%P", patience=SINFO_SECONDS)
            return "slurm"
        except NoAnswer as error:
            if not asking and error.of_no_cluster:
                return "local"  # installed, but this machine belongs to no cluster
            instead = "--cluster local runs the study on this machine"
            if error.of_no_cluster or options.dry_run:
                refuse_without_slurm(asking, error, f"; {instead}")
            if not said:
                print(f"waiting until Slurm answers ({one_line(error)}); Ctrl-C ends this, and {instead}", flush=True)
            said = True
        time.sleep(RETRY_SECONDS)


def option_for_slurm(options: argparse.Namespace) -> str:
    """Return the command-line option that requests Slurm, "" if there is none.

    `[slurm]` in a site file does not count: a user's own site file is read on every machine.
    """
    if options.cluster == "slurm":
        return "--cluster slurm"
    given = (f"--slurm.{name}" for name in SlurmSettings.model_fields if getattr(options, f"slurm_{name}") is not None)
    return "--detach" if options.detach else next(given, "")


def refuse_without_slurm(asking: str, error: NoAnswer, instead: str = "") -> NoReturn:
    """Raise the error for a command that needs Slurm, quoting Slurm.

    Args:
        asking: the option that needs it, "" if there is none.
        error: the answer of Slurm's command.
        instead: an alternative to suggest.

    Raises:
        UserError: this machine belongs to no cluster.
        ConnectionError: the scheduler is down.
    """
    kind = UserError if error.of_no_cluster else ConnectionError
    raise kind(f"{asking}{': ' if asking else ''}Slurm does not answer ({one_line(error)}){instead}") from None


def slurm_backend(settings: SlurmSettings) -> SlurmBackend:
    """Create the Slurm backend.

    Raises:
        UserError: this machine has no Slurm.
    """
    return from_login_node(partial(SlurmBackend, settings))


def from_login_node(make: Callable[[], S]) -> S:
    """Create a Slurm backend.

    Raises:
        UserError: this machine has no Slurm.
    """
    try:
        return make()
    except SubmissionRefused as refusal:
        raise UserError(f"--cluster slurm: {refusal}") from None


def threads_of(settings: SlurmSettings) -> int:
    """Threads of a trial on Slurm: trials of one job share its cores."""
    return max(1, settings.cpus // settings.trials_per_worker) if settings.workers else settings.cpus


def trials_per_gpu(backend: Backend, parallel: int) -> int:
    """The largest number of trials at once on one GPU."""
    if isinstance(backend, WorkerBackend):
        return math.ceil(backend.settings.trials_per_worker / max(backend.gpus, 1))
    gpus = len(backend.visible) if isinstance(backend, LocalBackend) else parallel
    return math.ceil(parallel / max(gpus, 1))


def choose_backend(
    options: argparse.Namespace, site: Site, workers: Callable[[], WorkerBackend]
) -> tuple[Backend, int]:
    """Choose the backend and its number of slots.

    Args:
        options: the command line.
        site: the site file with the command line's changes.
        workers: makes the backend of workers on Slurm.

    Raises:
        UserError, ConnectionError: it is not available.
    """
    cluster = choose_cluster(options)
    if cluster == "slurm" and site.slurm.workers:
        slots = site.slurm.workers * site.slurm.trials_per_worker
        return from_login_node(workers), min(site.parallel, slots) if "parallel" in site.model_fields_set else slots
    if cluster == "slurm":
        return slurm_backend(site.slurm), site.parallel
    gpus = [] if options.device == "cpu" else visible_gpus()
    if options.device == "cuda" and not gpus:
        raise UserError("--device cuda: nvidia-smi shows no GPU on this machine; use --device auto or cpu")
    if cluster == "debug":
        from mmkd import trial  # torch: not before it is needed

        return DebugBackend(trial.main), 1
    start = LocalWorker() if options.workers else start_process
    return LocalBackend(gpus, start), options.parallel or len(gpus) or min(usable_cores(), 4)


def past_backend(name: str, site: Site, *, poll: float) -> Backend:
    """Recreate the backend of an earlier launch, to watch and end its jobs.

    Args:
        name: its name in the attempts' records.
        site: the present site.
        poll: seconds between queries to Slurm.

    Raises:
        UserError, ConnectionError: this machine cannot reach it.
    """
    if name == "local":
        return LocalBackend()
    if name != "slurm":
        raise UserError(f"an attempt was recorded on backend {name!r}, which this version does not know")
    try:
        ask("sinfo", "-h", "-o", "%P")
    except NoAnswer as error:
        refuse_without_slurm("jobs of Slurm", error)
    return slurm_backend(site.slurm.model_copy(update={"poll": poll}))
