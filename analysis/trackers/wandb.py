"""Write runs as offline runs of Weights & Biases.

`wandb sync` replaces a run on the server by the offline run with the same id. A run that has changed is therefore
written again as a whole, and its earlier offline run is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Neither crash reports nor a network are wanted; both are read at import.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from analysis.trackers.tracked_run import PROJECT, Exporter, TrackedRun
from mmkd.files import write_text
from mmkd.trial_state import State

VIEW = "wandb sync {directory}/wandb/offline-run-*   (uploads; needs an account and a network)"
_MARK = "mmkd.content"
"""File in an offline run: hash of what was exported, written last."""


@contextmanager
def exporter(directory: Path) -> Iterator[Exporter]:
    """Write offline runs to `directory`/wandb. They are complete once the block has ended."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        mode="offline", project=PROJECT, root_dir=str(directory), console="off", silent=True, disable_git=True,
        disable_code=True, symlink=False, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
    )  # fmt: skip
    written: dict[Path, str] = {}

    def export(run: TrackedRun) -> bool:
        earlier = sorted((directory / "wandb").glob(f"offline-run-*-{run.id}"))
        current = [path for path in earlier if _content(path) == run.content]
        for path in earlier:
            if path not in current[:1]:
                shutil.rmtree(path)
        if not current:
            written[_write(settings, run)] = run.content
        return not current

    try:
        yield export
    finally:
        wandb.teardown()  # finish() may return before W&B's own process has written all
    for path, content in written.items():
        write_text(path / _MARK, content)


def _write(settings: wandb.Settings, run: TrackedRun) -> Path:
    """Write a run. Return its directory."""
    written = wandb.init(
        settings=settings, id=run.id, name=run.name, group=run.tags.get("row"), job_type=run.tags["kind"],
        tags=[f"{name}:{value}"[:64] for name, value in run.tags.items()], config={**run.parameters, **run.tags},
        reinit="create_new",
    )  # fmt: skip
    for epoch in run.epochs:
        written.log({**epoch.values, "_timestamp": epoch.time}, step=epoch.number)
    written.summary.update({f"result/{name}": value for name, value in run.result.items()})
    written.finish(exit_code=int(run.state == State.FAILED))
    return Path(written.dir).parent


def _content(offline_run: Path) -> str:
    try:
        return (offline_run / _MARK).read_text(encoding="utf-8")
    except OSError:
        return ""
