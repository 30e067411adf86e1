"""Facts of methods that planning needs, kept in a file so that a login node need not import torch for them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mmkd.config import Distillation
from mmkd.distillation import complete, load_method
from mmkd.provenance import source_digest
from mmkd.records import Record, find_record, write_record


class MethodFacts(Record):
    """A method as a study asks for it, with level and settings filled in, and what its class says of itself.

    See `mmkd.distillation.base.DistillationMethod`.
    """

    asked: Distillation
    distillation: Distillation
    needs_teacher: bool
    tunes: tuple[str, ...]
    usual_temperature: float


class _Kept(Record):
    """The file: facts, and the hash of the code that they were read from."""

    code: str
    methods: tuple[MethodFacts, ...]


def kept_facts(file: Path) -> tuple[MethodFacts, ...]:
    """Facts in `file`; none if it cannot be read, or if the code has changed since it was written."""
    try:
        kept = find_record(file, _Kept)
    except OSError:  # who writes the root says it
        return ()
    return kept.methods if kept is not None and kept.code == source_digest() else ()


def keep_facts(file: Path, methods: Iterable[MethodFacts]) -> None:
    """Add facts to `file`, which is only a cache: where it cannot be written, each launch imports the methods."""
    kept = kept_facts(file)
    found = list(kept)
    for method in methods:
        if method not in found:
            found.append(method)
    if len(found) > len(kept):
        with suppress(OSError):
            write_record(file, _Kept(code=source_digest(), methods=tuple(found)))


def facts_of(asked: Distillation, kept: Iterable[MethodFacts] = ()) -> MethodFacts:
    """Return the facts of a method, from `kept` if they are there.

    Raises:
        UserError: see `mmkd.distillation.complete`.
    """
    known = next((facts for facts in kept if facts.asked == asked), None)
    if known is not None:
        return known
    method = load_method(asked.method)
    return MethodFacts(
        asked=asked,
        distillation=complete(asked),
        needs_teacher=method.needs_teacher,
        tunes=method.tunes,
        usual_temperature=method.usual_temperature,
    )
