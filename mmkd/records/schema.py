"""Read and write a record: a JSON file with one schema.

Unknown keys are ignored, so that a newer mmkd's files stay readable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mmkd.errors import UserError
from mmkd.files import write_json
from mmkd.schema import explain
from mmkd.terminal import is_plain

LONGEST_LINE = 200


def _check_line(text: str) -> str:
    if not is_plain(text) or len(text) > LONGEST_LINE:
        raise ValueError(f"{text[:100]!r}: give one line of at most {LONGEST_LINE} printable characters")
    return text


Line = Annotated[str, AfterValidator(_check_line)]
"""Text for people and tables."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A name inside one directory: `--clean` removes files there, and figures' files are named after rows."""
Percent = Annotated[float, Field(ge=0, le=100)]


class Record(BaseModel):
    """Base of all records: immutable."""

    model_config = ConfigDict(frozen=True)


R = TypeVar("R", bound=BaseModel)


def as_written(record: BaseModel) -> Any:
    """JSON values of a record, without the keys that it was made without."""
    return record.model_dump(exclude_unset=True)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record, see `mmkd.files.write_atomically`."""
    write_json(path, as_written(record))


def read_record(path: Path, schema: type[R], remedy: str = "launch the study again to rewrite it") -> R:
    """Read a record.

    Raises:
        UserError: it cannot be read or is invalid; names file, key, value and remedy.
    """
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{explain(error, path)}; {remedy}") from None


def find_record(path: Path, schema: type[R]) -> R | None:
    """Read a record; None if it is absent or invalid, where a relaunch rewrites it."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
