"""Check that a row and its control train the same student: else their difference is not the method's effect alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from analysis.loading.study_rows import RowRuns
from mmkd.models.pairings import proxies_differ, resolve_pairing

SIZE = "settings.size"
"""The setting of `edam` and `no_kd` that chooses the student's proxies."""


def unlike_controls(rows: Sequence[RowRuns]) -> Iterator[str]:
    """A line for the rows whose student differs from their control's in the same keys: network, pairing or proxies."""
    named = {row.spec.name: row for row in rows}
    alike: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        control = named.get(row.control or "")
        if control is None or row.row is None or control.row is None:
            continue
        if differing := _differing(row, control):
            alike.setdefault((control.title, "; ".join(differing)), []).append(row.title)
    for (control_title, how), titles in alike.items():
        yield f"{', '.join(titles)}: compared with “{control_title}”, whose student is another: {how}"


def _differing(row: RowRuns, control: RowRuns) -> list[str]:
    assert row.row is not None
    columns = [str(column) for column in row.row.index if str(column).startswith("student.")]
    pairs = {column: (row.fact(column), control.fact(column)) for column in ("pairing", *columns)}
    if _proxies_matter(row):
        pairs["proxies"] = (row.fact(SIZE) or "down", control.fact(SIZE) or "down")
    return [
        f"{key.removeprefix('student.')} {mine or 'not set'}, there {theirs or 'not set'}"
        for key, (mine, theirs) in pairs.items()
        if mine != theirs
    ]


def _proxies_matter(row: RowRuns) -> bool:
    """False where proxies of both sizes are the same; True where the row's record does not say so."""
    assert row.row is not None
    primary = row.fact("primary")
    steps = _steps(row.row.to_dict())
    return not steps or proxies_differ(resolve_pairing(row.fact("pairing"), primary, list(steps)), primary, steps)


def _steps(line: Mapping[object, object]) -> dict[str, int]:
    lengths = {
        str(column).removeprefix("steps."): value for column, value in line.items() if str(column).startswith("steps.")
    }
    return {modality: int(float(str(value))) for modality, value in lengths.items() if value == value}
