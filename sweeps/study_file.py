"""Read a study file (TOML), apply the command line's overrides, and validate it."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from mmkd import records
from mmkd.config import SplitSettings
from mmkd.errors import UserError, choose, errors_about
from mmkd.records import Line
from mmkd.rundir import check_name
from mmkd.schema import Frozen, explain
from sweeps.search_space import Space
from sweeps.study_keys import keys_named

STUDIES = Path(__file__).parent / "studies"

Sampler = Literal["auto", "random", "tpe", "gp", "cmaes"]
Selection = Literal["loss", "accuracy", "weighted_f1", "macro_f1"]
Pruner = Literal["none", "median", "halving"]
LARGEST_FILE = 2**20
"""Maximum size of a study, profile or site file in bytes; real ones have a few thousand."""


def _as_count(value: object) -> object:
    if isinstance(value, list):
        raise ValueError(f"give a number, not a list: {len(value)} for as many as you listed")
    return value


Trials = Annotated[int, BeforeValidator(_as_count), Field(ge=1, le=1_000_000)]
Seeds = Annotated[int, BeforeValidator(_as_count), Field(ge=1, lt=10_000)]
Replicates = Annotated[int, BeforeValidator(_as_count), Field(ge=1, le=10_000)]


class Defaults(Frozen):
    """Defaults of all rows."""

    pairing: str = "others"
    space: Space = Space()
    sampler: Sampler = "auto"
    trials: Trials = 20
    seeds: Seeds = 5
    selection: Selection = "loss"
    pruner: Pruner = "none"


class Finalists(Frozen):
    """The `best` trials of each row run again on `seeds` more seeds; the winner has the best mean on validation."""

    best: Annotated[int, Field(ge=2, le=1000)]
    seeds: Annotated[int, Field(ge=1, le=100)]


class PaperFigures(records.PaperFigures, Frozen):
    """The paper's figures as a study file gives them."""


class Recipe(Frozen):
    """Tables of networks and training: `training` applies to both, `teacher_training` takes precedence for teachers."""

    teacher: dict[str, Any] = {}
    student: dict[str, Any] = {}
    training: dict[str, Any] = {}
    teacher_training: dict[str, Any] = {}


class RowSpec(Recipe):
    """One row: a method on a pairing. `settings` are the method's own; tables are partial and override the study's.

    `control` names the row that it is compared with, by default the study's control.
    """

    name: str
    label: Line | None = None
    group: Line | None = None
    method: str
    level: str | None = None
    settings: dict[str, Any] = {}
    control: str | None = None
    pairing: str | None = None
    space: Space = Space()
    sampler: Sampler | None = None
    trials: Trials | None = None
    seeds: Seeds | None = None
    selection: Selection | None = None
    pruner: Pruner | None = None
    paper: PaperFigures | None = None


class StudyFile(Recipe):
    """A study file. Its tables override those of the profile of its data in part (see `sweeps/profiles`).

    `replicates` is how often each row is tuned and tested, each time on its own split, as `splits` says; `trials`
    and `seeds` count per replicate. `teacher_tuning` is a partial `TeacherTuning`.
    Without `finalists`, the best trial wins.
    """

    title: Line
    control: str | None = None
    data: str = "synthetic:small"
    primary: str = "video"
    profile: str = "auto"
    replicates: Replicates = 1
    splits: SplitSettings = SplitSettings()
    teacher_tuning: dict[str, Any] = {}
    finalists: Finalists | None = None
    defaults: Defaults = Defaults()
    rows: Annotated[list[RowSpec], Field(min_length=1)]

    @field_validator("rows", mode="before")
    @classmethod
    def _are_several(cls, rows: Any) -> Any:
        if isinstance(rows, dict):
            raise ValueError("write [[rows]] with two brackets before each row")
        return rows

    @model_validator(mode="after")
    def _rows_are_named_once(self) -> StudyFile:
        names = [row.name for row in self.rows]
        for name in names:
            try:
                check_name("row", name)
            except UserError as error:
                raise ValueError(error) from None  # pydantic's way, which adds the file
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rows are called {', '.join(twice)}")
        if self.control is not None and self.control not in names:
            raise ValueError(f"control = {self.control!r} is no row (rows: {', '.join(names)})")
        for row in self.rows:
            others = [name for name in names if name != row.name]
            if row.control is not None and row.control not in others:
                raise ValueError(
                    f"row {row.name}: control = {row.control!r} is no other row (other rows: {', '.join(others)})"
                )
        return self


def study_names() -> list[str]:
    """List the studies that come with mmkd."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def find_study(name: str) -> Path:
    """Find the file of a built-in study, or of the user's own (a path that ends in .toml).

    Raises:
        UserError: there is none; with the nearest names.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{path}: no such study file")
        check_name("study", path.stem)
        return path
    if name not in study_names() and Path(f"{name}.toml").is_file():
        raise UserError(f"no study {name!r} comes with mmkd; for the file that is here: --study {name}.toml")
    if Path(name).suffix or Path(name).is_file():
        raise UserError(f"--study {name}: a study file ends in .toml; --list shows the studies that come with mmkd")
    choose("study", name, study_names())
    return STUDIES / f"{name}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """Read the TOML file `path`.

    Raises:
        UserError: it cannot be read, or is not TOML; with the line.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE} bytes; a TOML file of ours has a few thousand")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a TOML file: {error}; write key = value, and text in quotes") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def load_study(path: Path, overrides: Sequence[tuple[str, Any]] = (), origin: str = "") -> StudyFile:
    """Load the study in `path` and set the command line's values at dotted keys; rows are addressed by name.

    Errors name `origin`, by default the path.

    Raises:
        UserError: naming the file, the key, the value and the choices.
    """
    raw = read_toml(path)
    for key, value in overrides:
        override(raw, key, value)
    try:
        return StudyFile.model_validate(raw)
    except ValidationError as error:
        names = [str(row.get("name", n) if isinstance(row, dict) else n) for n, row in enumerate(_rows(raw))]
        raise UserError(
            explain(error, origin or path, {"rows": names}, elsewhere=partial(keys_named, schema=StudyFile))
        ) from None


def override(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set `value` at a dotted key such as `training.epochs` or `rows.crd_attention.space.beta.high`.

    `rows.*` addresses every row.

    Raises:
        UserError: the key leads nowhere.
    """
    first, *rest = key.split(".")
    if first == "rows" and len(rest) >= 2 and isinstance(raw.get("rows"), list):
        tables = [row for row in _rows(raw) if isinstance(row, dict)]
        chosen = [row for row in tables if rest[0] in ("*", row.get("name"))]
        if not chosen and rest[0] != "*":
            with errors_about(f"--set {key}"):
                choose("row", rest[0], [str(row.get("name")) for row in tables])
        for row in chosen:
            _put(row, rest[1:], copy.deepcopy(value), key)
        return
    _put(raw, [first, *rest], value, key)


def _rows(raw: Mapping[str, Any]) -> list[Any]:
    """Return the raw entries of `rows`, which may be anything."""
    rows = raw.get("rows")
    return rows if isinstance(rows, list) else []


def _put(table: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {key}: {part!r} is a value, not a table")
    table[path[-1]] = value


def parse_override(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; VALUE is read as TOML, or as a plain word if it is not TOML.

    Raises:
        UserError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r}: write KEY=VALUE, for example training.batch_size=32")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()


def merge(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; later ones take precedence."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
