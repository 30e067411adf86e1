"""Base of all that people write by hand, and the explanation of its errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError

from mmkd.errors import nearest


class Frozen(BaseModel):
    """Base of all configuration: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def omit_defaults(model: Frozen, serialize: SerializerFunctionWrapHandler, *keys: str) -> dict[str, Any]:
    """Leave out `keys` at their defaults: configurations from before there were such keys keep their hashes."""
    written: dict[str, Any] = serialize(model)
    for key in keys:
        if getattr(model, key) == type(model).model_fields[key].default:
            written.pop(key, None)
    return written


def explain(
    error: ValidationError,
    origin: Path | str,
    names: Mapping[str, Sequence[str]] | None = None,
    keys: Iterable[str] = (),
    elsewhere: Callable[[str], Sequence[str]] = lambda key: (),
) -> str:
    """Format pydantic's validation errors in one line: file, key, value, and what is allowed.

    `names` are the names of a list's entries, by the list's key: `rows.1` becomes `rows.crd`. `keys` are further
    candidates for a mistyped key, beside those of all configuration here. `elsewhere` returns where a misplaced key may
    stand.
    """
    said: dict[str, str] = {}
    # A value that may be a table or a number gets an error from each: that of the number says more.
    for item in sorted(error.errors(), key=lambda item: item["type"] == "model_type"):
        where = _key(item["loc"], names or {})
        if where in said or any(other.startswith(f"{where}.") for other in said if where):
            continue
        if item["type"] == "extra_forbidden":
            said[where] = "unknown key" + _suggestion(str(item["loc"][-1]), keys, elsewhere)
            continue
        if item["type"] == "model_type" and where:
            fields = next((m.model_fields for m in _configuration() if m.__name__ == item["ctx"]["class_name"]), {})
            item["msg"] = f"write a table with keys{f' such as {next(iter(fields))}' if fields else ''}"
        shown = item["type"] not in ("missing", "value_error") and not isinstance(item["input"], (dict, list))
        said[where] = item["msg"].removeprefix("Value error, ") + (f" (is {_shortly(item['input'])})" if shown else "")
    return f"{origin}: " + "; ".join(f"{where}: {what}" if where else what for where, what in said.items())


def _shortly(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"


_PYDANTICS_OWN = re.compile(r"[\[(]|^constrained-|^(?:float|int|str|Range)$")


def _key(location: Sequence[int | str], names: Mapping[str, Sequence[str]]) -> str:
    """A location as the user wrote it, without pydantic's names of unions and validators."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            known = names.get(parts[-1], []) if parts else []
            parts.append(known[part] if part < len(known) else str(part))
        elif not _PYDANTICS_OWN.search(part):
            parts.append(part)
    return ".".join(parts)


def _suggestion(key: str, keys: Iterable[str], elsewhere: Callable[[str], Sequence[str]]) -> str:
    """Suggest the nearest key of any configuration for a mistyped one; a key of another section is only misplaced."""
    known = set(keys).union(*(model.model_fields for model in _configuration()))
    here, near = ("", nearest(key, known)[:1]) if key not in known else (" here", elsewhere(key))
    return f"{here}, did you mean {' or '.join(near)}?" if near else here


def _configuration() -> Iterator[type[BaseModel]]:
    """Yield all schemas of what people write."""
    models: list[type[BaseModel]] = [Frozen]
    while models:
        models += (model := models.pop()).__subclasses__()
        yield model
