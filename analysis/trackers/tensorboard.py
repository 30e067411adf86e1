"""Write runs as TensorBoard event files.

Each export of a run adds one file with what is new, as a resumed training would. Its name says how far it goes, so
that file and bookkeeping appear in one rename: `events.out.tfevents.<number>.<run id>.<epochs>.<state>`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from analysis.trackers.tracked_run import Exporter, TrackedRun
from mmkd.files import write_atomically

VIEW = "tensorboard --logdir {directory}"
_NAME = re.compile(r"events\.out\.tfevents\.(\d{6})\.([0-9a-f]{16})\.(\d+)\.(\w+)")
_UNFINISHED = "mmkd.partial"
"""A file is written under this name, which TensorBoard ignores, and then renamed."""


@dataclass(frozen=True)
class _Exported:
    """Progress of a run in its last event file."""

    number: int = 0
    epochs: int = 0
    state: str = ""


@contextmanager
def exporter(directory: Path) -> Iterator[Exporter]:
    """Write each run to its directory below `directory`."""
    yield partial(_export, directory)


def _export(directory: Path, run: TrackedRun) -> bool:
    target = directory / run.name
    target.mkdir(parents=True, exist_ok=True)
    last = _last_export(target, run)
    epochs = max(len(run.epochs), last.epochs)
    if (epochs, run.state) == (last.epochs, last.state):
        return False
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in _events(run, last):
        writer.write(event.SerializeToString())
    write_atomically(target / _UNFINISHED, lambda path: path.write_bytes(content.getvalue()))
    name = f"events.out.tfevents.{last.number + 1:06d}.{run.id}.{epochs}.{run.state}"
    os.replace(target / _UNFINISHED, target / name)
    return True


def _last_export(target: Path, run: TrackedRun) -> _Exported:
    """Find how far a run was exported. Remove what was exported of another configuration in the same directory."""
    last = _Exported()
    for path in sorted(target.iterdir()):
        if not (found := _NAME.fullmatch(path.name)):
            continue
        if found[2] != run.id:
            path.unlink()
            continue
        last = _Exported(int(found[1]), int(found[3]), found[4])
    return last


def _events(run: TrackedRun, last: _Exported) -> Iterator[Event]:
    """New events of a run since its `last` export."""
    yield Event(wall_time=run.started, file_version="brain.Event:2")
    if not last.number:
        labels = {name: value for name, value in run.tags.items() if name != "state"}
        hparams = hparams_pb({**run.parameters, **labels}, trial_id=run.name, start_time_secs=run.started)
        yield Event(wall_time=run.started, step=0, summary=hparams)
    for epoch in run.epochs[last.epochs :]:
        yield _scalars(dict(epoch.values), epoch.number, epoch.time)
    if run.state != last.state:
        yield Event(wall_time=run.ended, step=len(run.epochs), summary=text_pb("state", run.state))
        yield _scalars({f"result/{name}": x for name, x in run.result.items()}, len(run.epochs), run.measured)


def _scalars(values: dict[str, float], step: int, time: float) -> Event:
    summary = Summary()
    for name, value in values.items():
        summary.value.extend(scalar_pb(name, value).value)
    return Event(wall_time=time, step=step, summary=summary)
