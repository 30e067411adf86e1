"""Compare records leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, with keys such as `outer.inner`; an empty mapping is a leaf."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def differences(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Compare nested mappings leaf by leaf: key -> its value in each (None if absent), where they are not all equal."""
    flat = [dict(leaves(value)) for value in values]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        each = [one.get(key) for one in flat]
        if not all(key in one for one in flat) or any(value != each[0] for value in each):
            found[key] = each
    return found
