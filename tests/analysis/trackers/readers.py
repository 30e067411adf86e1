"""Read what was exported, each tracker's files by the tracker's own code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Seen:
    """What a tracker shows of a run; a series has a list of (step, value), so that a repeated step is seen."""

    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    result: dict[str, float] = field(default_factory=dict)


def read_tensorboard(directory: Path) -> dict[str, Seen]:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data
    from tensorboard.util.tensor_util import make_ndarray

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    found = {}
    for name in multiplexer.Runs():
        seen = found[name] = Seen()
        content = multiplexer.SummaryMetadata(name, SESSION_START_INFO_TAG).plugin_data.content
        for key, value in parse_session_start_info_plugin_data(content).hparams.items():
            known = value.string_value or value.number_value
            (seen.tags if "." not in key and isinstance(known, str) else seen.parameters)[key] = str(known)
        for tag in multiplexer.Runs()[name]["tensors"]:
            events = [(event.step, make_ndarray(event.tensor_proto)) for event in multiplexer.Tensors(name, tag)]
            if tag == "state":
                seen.tags["state"] = events[-1][1].item().decode()
            elif tag.startswith("result/"):
                [(_, seen.result[tag.removeprefix("result/")])] = events
            elif tag != SESSION_START_INFO_TAG:
                seen.series[tag] = [(step, float(value)) for step, value in events]
    return found


def read_mlflow(directory: Path) -> dict[str, Seen]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    found: dict[str, Seen] = {}
    experiment = client.get_experiment_by_name("mmkd")
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.run_name not in found, "a run was made twice"
        seen = found[run.info.run_name] = Seen(run.data.params, run.data.tags)
        for name in run.data.metrics:
            history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            if name.startswith("result/"):
                [(_, seen.result[name.removeprefix("result/")])] = history
            else:
                seen.series[name] = sorted(history)
    return found


def read_wandb(directory: Path) -> dict[str, Seen]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Seen] = {}
    for path in directory.glob("wandb/offline-run-*/*.wandb"):
        seen, name = Seen(), ""
        for raw in _log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(raw)
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                seen.parameters = {key: str(value) for key, value in config.items() if "." in key}
                seen.tags = dict(tag.partition(":")[::2] for tag in record.run.tags)
            elif record.WhichOneof("record_type") == "history":
                line = {(i.nested_key or [i.key])[0]: json.loads(i.value_json) for i in record.history.item}
                for key, value in line.items():
                    if not key.startswith("_"):
                        seen.series.setdefault(key, []).append((line["_step"], value))
            elif record.WhichOneof("record_type") == "summary":
                items = [((i.nested_key or [i.key])[0], json.loads(i.value_json)) for i in record.summary.update]
                seen.result |= {key.removeprefix("result/"): x for key, x in items if key.startswith("result/")}
        assert name not in found, "a run was made twice"
        found[name] = seen
    return found


def _log_records(content: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        if (room := 32768 - position % 32768) < 7:
            position += room
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


READERS: dict[str, Callable[[Path], dict[str, Seen]]] = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
}


def comparable(seen: dict[str, Seen]) -> Any:
    """All of it as one value."""
    return {name: (run.parameters, run.tags, run.series, run.result) for name, run in seen.items()}
