"""The dotted keys that a study file may contain, from its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from mmkd.config import Network, Training
from mmkd.errors import UserError, nearest
from sweeps.teacher_tuning import TeacherTuning

TABLES: dict[str, type[BaseModel]] = {
    "teacher": Network,
    "student": Network,
    "training": Training,
    "teacher_training": Training,
    "teacher_tuning": TeacherTuning,
}
"""Schemas of the partial tables of a `Recipe`."""
FREE = ("settings", "kernels")
"""Tables whose keys the method or the data decide."""


def study_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all keys, tables included; those of a row are `rows.NAME.key`."""
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        key = "rows.NAME" if name == "rows" else f"{prefix}{name}"
        if key == "rows.NAME":
            yield key
        inner = TABLES[name] if name in TABLES else _model_in(field.annotation)
        if inner is not None:
            yield from study_keys(inner, f"{key}.")
    if schema is Network:
        yield f"{prefix}preset"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `Range | float | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(part) for part in get_args(annotation))
    return next((model for model in models if model is not None), None)


def check_key(key: str, schema: type[BaseModel]) -> None:
    """Check that a study file may contain a dotted key.

    Raises:
        UserError: it may not; with the keys that end alike, or resemble it, and the keys of its table.
    """
    parts = key.split(".")
    if parts[0] == "rows" and len(parts) > 1:
        parts[1] = "NAME"
    known = set(study_keys(schema))
    depth = next((n for n in range(len(parts)) if ".".join(parts[: n + 1]) not in known), None)
    if depth is None or (depth and parts[depth - 1] in FREE):
        return
    table = ".".join(parts[:depth])
    there = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == table}
    if not there:
        raise UserError(f"{table!r} is a value, not a table")
    near = [
        name for name in nearest(parts[depth], there) if ".".join([*parts[:depth], name, *parts[depth + 1 :]]) in known
    ]
    spelt = key.split(".")
    corrected = [".".join([*spelt[:depth], name, *spelt[depth + 1 :]]) for name in near]
    elsewhere = keys_named(parts[-1], schema)
    near = elsewhere or corrected if depth == len(parts) - 1 else corrected or elsewhere
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"no such key{hint} (keys{f' of {table}' if table else ''}: {', '.join(sorted(there))})")


def keys_named(name: str, schema: type[BaseModel]) -> list[str]:
    """Return the shortest keys whose last part is `name`."""
    found = [key for key in study_keys(schema) if key.rpartition(".")[2] == name and "." in key]
    return sorted(found, key=lambda key: (key.count("."), len(key)))[:3]
