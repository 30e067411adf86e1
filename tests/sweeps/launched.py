"""A study that was launched on a backend that trains nothing, as its launches leave it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from controlled import rows_of, run
from fakes import FakeBackend

from mmkd.rundir import Root
from sweeps.controller.stopping import Interrupted, Stop
from sweeps.launched_study import RecordedStudy, read_recorded, record_study
from sweeps.rows import Row
from sweeps.study_file import load_study, parse_override


def launched(
    study_file: Path,
    folder: Path,
    *overrides: str,
    backend: FakeBackend | None = None,
    stop: Callable[[], Stop | None] = lambda: None,
    name: str = "tiny",
) -> RecordedStudy:
    """Launch the study under `folder`/runs until it is done or stopped; what was recorded of it."""
    root, rows = Root(folder / "runs"), planned(study_file, folder, *overrides)
    study = load_study(study_file, [parse_override(text) for text in overrides])
    record = partial(record_study, root, name, study, rows)
    record()
    with suppress(Interrupted):
        run(rows, root, backend or FakeBackend(), stop=stop, on_choice=record)
    return read_recorded(root, name)


def planned(study_file: Path, folder: Path, *overrides: str) -> list[Row]:
    """The study's rows under `folder`/runs."""
    return list(rows_of(study_file, folder, *overrides).values())


def after(rounds: int, how: Stop) -> Callable[[], Stop | None]:
    """Asks a controller to stop after so many rounds."""
    left = iter(range(rounds))
    return lambda: None if next(left, None) is not None else how


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder: its size, and when it was changed."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns) for path, status in files}
