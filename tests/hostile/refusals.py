"""What every refusal has in common, checked in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmkd.terminal import is_plain


def run(main: Callable[[list[str]], int], *arguments: object) -> int:
    """The exit code of a command that runs in this process."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and path.stat().st_size < 10**7 else None
        for path in folder.rglob("*")
    }


@dataclass(frozen=True)
class Refusals:
    """Runs commands that must refuse what lies in `folder`."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def of(self, main: Callable[[list[str]], int], *arguments: object, said: str, code: int = 2) -> str:
        """The complaint: one printable line that matches `said`; and nothing in the folder has changed."""
        before = tree(self.folder)
        self.capsys.readouterr()
        ended = run(main, *arguments)
        complaint = self.capsys.readouterr().err
        assert ended == code, complaint
        assert complaint.startswith("error: "), complaint
        assert complaint.endswith("\n")
        assert is_plain(complaint[:-1]), f"one line, without control characters: {complaint!r}"
        assert re.search(said, complaint), complaint
        assert len(complaint) < 2000 + len(str(self.folder)) * 2, "a line that nobody reads"
        assert tree(self.folder).keys() == before.keys(), "nothing is left behind"
        assert tree(self.folder) == before
        return complaint
