"""Pairings: teacher, student stacks, and distilled stacks (section 4.2 of the paper, any primary modality).

`Y<-X` is the paper's arrow: queries from X, keys and values from Y.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from mmkd.errors import UserError, choose


@dataclass(frozen=True)
class Pairing:
    """A teacher-student configuration.

    `branch` names the teacher's branch (None: the complete teacher); `stacks` are the student's first-stage stacks as
    (source, query); `fused`: a second stage follows, as in the teacher; `distilled` names the stacks, of
    both teacher and student, whose layers are compared; `inputs` are the modalities that the student reads.
    """

    name: str
    branch: str | None
    stacks: tuple[tuple[str, str], ...]
    fused: bool
    distilled: tuple[str, ...]
    inputs: tuple[str, ...]


def stack_name(source: str, query: str) -> str:
    """The paper's arrow for a first-stage stack."""
    return f"{source}<-{query}"


def fusion_name(query: str) -> str:
    """Name of the second-stage (self-attention) stack of a query modality."""
    return f"fusion:{query}"


def is_fusion(name: str) -> bool:
    """True if the name is that of a second-stage stack."""
    return name.startswith("fusion:")


def ends_of(name: str) -> tuple[str, str]:
    """Source and query modality of a named stack."""
    if is_fusion(name):
        query = name.removeprefix("fusion:")
        return query, query
    source, query = name.split("<-")
    return source, query


def crossmodal_stacks(modalities: Sequence[str], branch: str | None = None) -> tuple[tuple[str, str], ...]:
    """The teacher's first-stage stacks as (source, query), grouped by query; those of one branch if it is named."""
    queries = [branch] if branch else modalities
    return tuple((source, query) for query in queries for source in modalities if source != query)


def canonical_name(name: str, primary: str, modalities: Sequence[str]) -> str:
    """The pairing's own name: `complete`, `others`, `multimodal` or a modality.

    For studies of any data, `primary` is the primary modality, `other1`, `other2`, ... are the others in the data's
    order; the others' names joined by `_` (the paper's `language_audio`) are `others`.

    Raises:
        UserError: the primary is none of the data's modalities, or the pairing is unknown; with the choices.
    """
    choose("primary modality", primary, modalities)
    if len(modalities) < 2:
        raise UserError(f"a teacher needs two modalities or more, the data have {', '.join(modalities)}")
    others = [m for m in modalities if m != primary]
    if len(others) > 1 and name in map("_".join, permutations(others)):
        return "others"
    if re.fullmatch(r"other\d+", name) and int(name[5:]) > len(others):
        raise UserError(
            f"pairing {name!r} needs {int(name[5:]) + 1} modalities, the data have {', '.join(modalities)}: leave the "
            "row out (--rows names those to run), or write a study without it"
        )
    name = modality_aliases(primary, modalities).get(name, name)
    return choose("pairing", name, ["complete", "others", "multimodal", *modalities])


def modality_aliases(primary: str, modalities: Sequence[str]) -> dict[str, str]:
    """The modality of each alias `primary`, `other1`, `other2`, ..."""
    others = [m for m in modalities if m != primary]
    return {"primary": primary} | {f"other{number}": m for number, m in enumerate(others, 1)}


def proxies_differ(pairing: Pairing, primary: str, steps: Mapping[str, int]) -> bool:
    """True if the proxies `down` and `up` of `build_student` give students that differ, for sequences of such lengths.

    Args:
        pairing: of the student.
        primary: the modality that proxies are made from.
        steps: modality -> length of its sequences.
    """
    replaced = {m for ends in pairing.stacks for m in ends} - set(pairing.inputs)
    return any(steps[m] != steps[primary] for m in replaced)


def resolve_pairing(name: str, primary: str, modalities: Sequence[str]) -> Pairing:
    """The pairing called `name` for data with `modalities` and a student of `primary`.

    `complete`: the student is built as the teacher, fed the primary and its proxies, and all stacks are distilled.
    `others`: stacks p<-p and p<-m for every other m under the complete teacher, p<-m distilled.
    A modality m: stacks p<-p and Y<-m for every Y but m under the teacher's branch m, Y<-m distilled.
    `multimodal`: the same, fed the modalities themselves; `primary` decides nothing.

    Raises:
        UserError: see `canonical_name`.
    """
    name = canonical_name(name, primary, modalities)
    if name in ("complete", "multimodal"):
        inputs = (primary,) if name == "complete" else tuple(modalities)
        stacks = crossmodal_stacks(modalities)
        distilled = [stack_name(*s) for s in stacks] + [fusion_name(m) for m in modalities]
        return Pairing(name, None, stacks, True, tuple(distilled), inputs)
    if name == "others":
        chosen = [(primary, m) for m in modalities if m != primary]
    else:
        chosen = [(m, name) for m in modalities if m != name]
    branch = None if name == "others" else name
    distilled = [stack_name(*s) for s in chosen]
    return Pairing(name, branch, ((primary, primary), *chosen), False, tuple(distilled), (primary,))
