"""The reference models of a study: fitted once per data set, split and modalities, and kept under the root."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from analysis.loading.replicate_runs import ReplicateRuns
from analysis.loading.runs import Runs
from analysis.loading.study_rows import RowRuns
from mmkd.config import DrawnSplit, digest, digest_of, from_json
from mmkd.errors import UserError
from mmkd.files import read_json
from mmkd.finished import UNWRITABLE
from mmkd.records import Record, RowRecord, find_record, write_record
from mmkd.rundir import Root, RowDir, TrialDir

VERSION = 1
"""Raised when a reference model gets other numbers."""
MULTIMODAL = "multimodal"
"""The pairing whose student reads all modalities."""


class Reference(Record):
    """`references/<digest>.json`: reference models of some modalities on a split; scores are shares of 1.

    `features` are those of the linear model, "sequences" or "summary"; `valid` and `test` are its scores, and
    `majority` are the scores on test of always predicting the most frequent class of train.
    """

    version: int
    fingerprint: str
    split: str
    modalities: tuple[str, ...]
    features: str
    valid: Mapping[str, float]
    test: Mapping[str, float]
    majority: Mapping[str, float]


@dataclass(frozen=True)
class Wanted:
    """A reference that a replicate is measured by; `path` is where its data were."""

    fingerprint: str
    split: DrawnSplit | None
    modalities: tuple[str, ...]
    path: Path

    @property
    def key(self) -> str:
        """Hash of what decides its numbers."""
        return digest([VERSION, self.fingerprint, digest_of(self.split), self.modalities])


_known: WeakKeyDictionary[Runs, dict[str, Reference]] = WeakKeyDictionary()
_records: WeakKeyDictionary[Runs, dict[str, Wanted | None]] = WeakKeyDictionary()


def student_modalities(row: RowRuns) -> tuple[str, ...]:
    """The modalities that a row's student reads."""
    return teacher_modalities(row) if row.fact("pairing") == MULTIMODAL else (row.fact("primary"),)


def teacher_modalities(row: RowRuns) -> tuple[str, ...]:
    """The modalities that a row's teacher reads: all, also if only one branch of it is used."""
    return tuple(row.fact("modalities").split(", "))


def references(runs: Runs, rows: Sequence[RowRuns], modalities: Sequence[str]) -> list[Reference]:
    """The references of these modalities that are known, one for each split on which a row was measured."""
    wanted = {one.key: one for one in _wanted(runs, rows, tuple(modalities))}
    return [found for one in wanted.values() if (found := _find(runs, one)) is not None]


def compute_references(
    runs: Runs, rows: Sequence[RowRuns], tell: Callable[[str], object] = lambda what: None
) -> list[str]:
    """Fit the references of rows that were measured, where they are not known yet, and store them under the root.

    Returns:
        Why there are none for some: the data file is gone, or another one.
    """
    problems: dict[str, None] = {}
    for modalities in dict.fromkeys(m for row in rows for m in (student_modalities(row), teacher_modalities(row))):
        for wanted in _wanted(runs, rows, modalities):
            if _find(runs, wanted) is not None:
                continue
            tell(f"fitting reference models of {' + '.join(modalities)}")
            try:
                _store(runs, wanted)
            except (UserError, OSError) as error:
                problems.setdefault(str(error).replace(f"{wanted.path.parent}/", ""))
    return list(problems)


def _wanted(runs: Runs, rows: Sequence[RowRuns], modalities: tuple[str, ...]) -> Iterator[Wanted]:
    """A reference for each split on which some row that reads these modalities, or whose teacher does, was measured."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if modalities not in (student_modalities(row), teacher_modalities(row)):
            continue
        for one in row.replicates:
            split = (one.fact("fingerprint"), one.fact("split"))
            if split in seen or not len(one.measured):
                continue
            seen.add(split)
            basis = _basis(runs, one)
            if basis is not None and set(modalities) <= set(teacher_modalities(row)):
                yield Wanted(basis.fingerprint, basis.split, modalities, basis.path)


def _basis(runs: Runs, one: ReplicateRuns) -> Wanted | None:
    """Data and split of a replicate, from its first final run; None if its files do not say."""
    kept = _records.setdefault(runs, {})
    name = one.spec.directory
    if name not in kept:
        kept[name] = _read_basis(runs, one)
    return kept[name]


def _read_basis(runs: Runs, one: ReplicateRuns) -> Wanted | None:
    path = TrialDir(runs.root / one.measured["directory"].iloc[0]).config
    record = find_record(RowDir(runs.root / "rows" / one.spec.directory).row, RowRecord)
    try:
        config = from_json(read_json(path), path)
    except (UserError, OSError):
        return None  # the checks of configurations name it
    where = config.data.path if record is None or Path(config.data.path).exists() else record.data.path
    return Wanted(config.data.fingerprint, config.split, (), Path(where))


def _find(runs: Runs, wanted: Wanted) -> Reference | None:
    kept = _known.setdefault(runs, {})
    if wanted.key not in kept:
        stored = find_record(Root(runs.root).reference(wanted.key), Reference)
        if stored is None:
            return None
        kept[wanted.key] = stored
    return kept[wanted.key]


def _store(runs: Runs, wanted: Wanted) -> None:
    from analysis.stats.linear_model import fit_references
    from mmkd.data import divide, read_info

    info = read_info(wanted.path)
    if info.fingerprint != wanted.fingerprint:
        raise UserError(f"{wanted.path}: other data than the runs were trained on")
    majority, features, scores = fit_references(divide(info, wanted.split), wanted.modalities)
    made = Reference(
        version=VERSION,
        fingerprint=wanted.fingerprint,
        split=digest_of(wanted.split),
        modalities=wanted.modalities,
        features=features,
        majority=majority,
        **scores,
    )
    _known.setdefault(runs, {})[wanted.key] = made
    path = Root(runs.root).reference(wanted.key)
    try:
        path.parent.mkdir(exist_ok=True)
        write_record(path, made)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
