"""Commands with the names of Slurm's, on PATH: they print what a test tells them to, and note how they were called."""

import os
import shlex
import stat
from pathlib import Path

import pytest

COMMANDS = ("sinfo", "sbatch", "squeue", "sacct", "scancel", "srun")


class StubSlurm:
    """Stands beside the commands that it imitates; a command that has been told nothing prints nothing and succeeds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for command in COMMANDS:
            prefix = shlex.quote(str(folder / command))
            script = [
                "#!/bin/sh",
                f'for word in "$@"; do printf "%s\\0" "$word"; done > {prefix}.words',
                f"env -0 > {prefix}.environment",
                f"echo x >> {prefix}.calls",
                f"sleep $(cat {prefix}.hang 2> /dev/null || echo 0)",
                f"cat {prefix}.answer 2> /dev/null",
                f"cat {prefix}.complaint >&2 2> /dev/null",
                f"exit $(cat {prefix}.code 2> /dev/null || echo 0)",
            ]
            path = folder / command
            path.write_text("\n".join(script) + "\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answers(self, command: str, *lines: str) -> None:
        """The command succeeds and prints these lines."""
        self._tell(command, "answer", "".join(f"{line}\n" for line in lines))
        self._tell(command, "complaint", "")
        self._tell(command, "code", "0")

    def complains(self, command: str, text: str) -> None:
        """The command fails and says this."""
        self._tell(command, "answer", "")
        self._tell(command, "complaint", text)
        self._tell(command, "code", "1")

    def hangs(self, command: str, seconds: float) -> None:
        """The command takes so long from now on."""
        self._tell(command, "hang", f"{seconds}")

    def calls(self, command: str) -> int:
        """How often it was called."""
        path = self.folder / f"{command}.calls"
        return len(path.read_text().split()) if path.exists() else 0

    def words(self, command: str) -> list[str]:
        """The arguments of its last call."""
        return (self.folder / f"{command}.words").read_text().split("\0")[:-1]

    def environment(self, command: str) -> dict[str, str]:
        """The environment of its last call."""
        entries = (self.folder / f"{command}.environment").read_text().split("\0")[:-1]
        return dict(entry.split("=", 1) for entry in entries)

    def _tell(self, command: str, what: str, text: str) -> None:
        (self.folder / f"{command}.{what}").write_text(text)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StubSlurm:
    """Put the stubs first on PATH."""
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return StubSlurm(folder)


def queued(identifier: str, name: str, state: str, reason: str = "None", node: str = "n1") -> str:
    """A line of squeue as `slurm.accounting` asks for it."""
    return f"{identifier}|{state}|{reason}|{node}|gpu|0:10|3:59:50|2026-01-01T10:00:00|{name}"
