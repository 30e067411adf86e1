"""Record the code that a row's trials run, keep a copy on demand (--snapshot), and report changes."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from mmkd.errors import UserError
from mmkd.files import write_text
from mmkd.provenance import SNAPSHOT, SOURCE, git_commit, patch_digest, snapshot_origin, source_digest, working_tree
from mmkd.records import CodeRecord, CodeVersion, SnapshotRecord, code_versions, write_record
from mmkd.rundir import Root
from sweeps.actions.estimate import left_of
from sweeps.controller.row import RowWork
from sweeps.snapshot_path import code_digest, code_files, snapshot_directory


def take_snapshot(root: Root) -> Path:
    """Copy the packages that this process runs to `snapshot_directory`, atomically. Return the directory.

    Raises:
        UserError: the copy is there, but was changed.
    """
    snapshot = snapshot_directory(root)
    if not snapshot.exists():
        keep_patch(root)
        temporary = root.code / f".tmp-{secrets.token_hex(6)}-{snapshot.name}"
        for path in code_files(SOURCE.parent):
            copy = temporary / path.relative_to(SOURCE.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        origin = SnapshotRecord(git=git_commit(), code=source_digest(), taken=time.time())
        write_record(temporary / SNAPSHOT, origin)
        try:
            os.rename(temporary, snapshot)
        except OSError:
            shutil.rmtree(temporary)
            if not snapshot.exists():
                raise
    if code_digest(snapshot) != snapshot.name:
        raise UserError(f"{snapshot}: this snapshot was changed; remove the directory, and it is taken again")
    return snapshot


def keep_patch(root: Root) -> Path | None:
    """Write the difference of the working tree from its commit under the root. Return the file, None without any."""
    tree = working_tree()
    if tree is None or not tree[1]:
        return None
    path = root.code / f"{tree[0][:12]}-{patch_digest(tree[1])}.patch"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, tree[1])
    return path


class CodeWatch:
    """Record the code that the rows' trials run, and report changes. Hold the locks of the rows.

    A row's code.json has one entry per version: digest of mmkd's source, commit, hash of the patch, and since when.

    Args:
        rows: the rows.
        root: keeps patches and snapshots.
        source: the package that jobs import as mmkd.
    """

    def __init__(self, rows: Sequence[RowWork], root: Root, source: Path = SOURCE) -> None:
        self.rows, self.root, self.source = list(rows), root, source
        self._now = source_digest(source)

    def begin(self) -> str:
        """Record the code of each row with work left. Return a warning if a row has runs of other code, else ""."""
        rows, self.rows = self.rows, []
        return self.join(rows)

    def join(self, rows: Sequence[RowWork]) -> str:
        """See `begin`, for rows that are worked on from now on."""
        rows = [work for work in rows if not work.is_done and left_of(work.row).runs]
        self.rows += rows
        if rows:
            keep_patch(self.root)
        changed = []
        for work in rows:
            last = self._note(work)
            if last is not None and any((work.directory.trials(), work.directory.final_runs())):
                changed.append((work.row.name, last))
        if not changed:
            return ""
        names, (_, then) = ", ".join(dict.fromkeys(name for name, _ in changed)), changed[0]
        return (
            f"mmkd's code has changed since runs of {names} (was {then.code}, is {self._now}). If that changes "
            f"numbers, start new rows: another --root, or a raised ALGORITHM_VERSION in mmkd/config.py. To continue "
            f"with the code of then: {self._way_back(then)}. --snapshot keeps a study from such changes"
        )

    def __call__(self) -> str:
        """Return a warning if the code has changed since the last call, else ""."""
        before, self._now = self._now, source_digest(self.source)
        if self._now == before:
            return ""
        keep_patch(self.root)
        then = [entry for entry in map(self._note, self.rows) if entry is not None]
        back = self._way_back(then[0] if then else CodeVersion(code=before, since=0.0))
        return (
            f"mmkd's code has changed under the running study (was {before}, is {self._now}): jobs that start from now "
            f"on run the new code. If that changes numbers, stop, put the code back ({back}), and launch with "
            f"--snapshot, which runs a copy that edits do not touch; or start new rows (another --root)"
        )

    def _note(self, work: RowWork) -> CodeVersion | None:
        """Add the code to the row's record if it is new. Return the version before, if there was one."""
        known = code_versions(work.directory)
        if not work.is_locked:
            return None  # it is done
        if known and known[-1].code == self._now:
            return None
        work.lock.check()
        version = CodeVersion(code=self._now, **origin_of(self.source), since=time.time())
        write_record(work.directory.code, CodeRecord((*known, version)))
        return known[-1] if known else None

    def _way_back(self, then: CodeVersion) -> str:
        """Describe how to run a version of the code, as far as it was kept."""
        for copy in sorted(self.root.code.glob("*/")):
            origin = snapshot_origin(copy / SOURCE.name)
            if origin is not None and origin.code == then.code:
                return f"PYTHONPATH={copy} PYTHONSAFEPATH=1 python {copy}/sweeps/launch.py with the same options"
        if not then.commit:
            return "undo the change"
        patch = f" && git apply {self.root.code / f'{then.commit[:12]}-{then.diff}.patch'}" if then.diff else ""
        return f"git checkout {then.commit[:12]}{patch}"


def origin_of(source: Path) -> dict[str, str]:
    """Return commit and patch hash of a package: our own's, or those recorded in a snapshot."""
    if source == SOURCE:
        return git_commit()
    origin = snapshot_origin(source)
    return {} if origin is None else dict(origin.git)
