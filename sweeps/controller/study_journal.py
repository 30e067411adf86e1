"""Keep a copy of all rows' Optuna studies in one journal file (--journal), which optuna-dashboard shows side by side.

A row's own journal remains the only one that anything is read from. The copy is brought up to date from it, so that it
can be deleted at any time and two studies may share rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from mmkd.errors import UserError
from mmkd.formatting import replicate_title
from mmkd.rundir import Root
from sweeps.controller.journal import Journal, complement, damage_named, heal_journal
from sweeps.controller.optuna_study import Tuning

_BEGINNING = b'{"op_code":'
"""Every journal that Optuna wrote begins so."""
WAIT_SECONDS = 1.0
"""Time to wait for another process that writes to the copy; the next update tries again."""
ABANDONED_SECONDS = 20.0
"""A lock that is this old belongs to a process that was killed. Less than the time between two updates."""


def check_path(path: Path, root: Root) -> None:
    """Check before a launch that `path` can hold the copy.

    Raises:
        UserError: its directory does not exist, it is a file of something else, or a row's own journal.
    """
    said = f"--journal {path}"
    if not path.absolute().parent.is_dir():
        raise UserError(f"{said}: no such directory {path.absolute().parent}; make it first")
    if path.is_dir():
        raise UserError(f"{said}: is a directory; name a file in it")
    if path.resolve().is_relative_to((root.path / "rows").resolve()):
        raise UserError(f"{said}: is where rows keep their own journals; name a file elsewhere")
    if path.exists():
        with path.open("rb") as file:
            beginning = file.read(len(_BEGINNING))
        if beginning and beginning != _BEGINNING:
            raise UserError(f"{said}: exists and is not an Optuna journal; name another file")


class _SharedLock:
    """The lock of a journal that others write too: a link beside it, as Optuna's JournalFileSymlinkLock makes.

    Optuna's own waits as long as the link is there, or for ever if it leads nowhere; a controller must not wait.
    """

    def __init__(self, journal: Path) -> None:
        self.journal, self.link = journal, journal.with_name(f"{journal.name}.lock")
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def acquire(self) -> bool:
        """Take the lock.

        Raises:
            TimeoutError: another process holds it, or was killed while it did.
        """
        began = time.monotonic()
        while True:
            try:
                os.symlink(self.journal, self.link)
            except FileExistsError:
                if self._is_abandoned():
                    self.release()
                elif time.monotonic() - began > WAIT_SECONDS:
                    raise TimeoutError(f"another process writes to it; if none does, remove {self.link}") from None
                else:
                    time.sleep(0.01)
            else:
                return True

    def release(self) -> None:
        """Give the lock back."""
        self.link.unlink(missing_ok=True)

    def _is_abandoned(self) -> bool:
        """True if the same link was there for so long; a write takes milliseconds."""
        try:
            status = os.lstat(self.link)
        except FileNotFoundError:
            return False
        if self._seen != (mark := (status.st_ino, status.st_mtime_ns)):
            self._seen, self._since = mark, time.monotonic()
        return time.monotonic() - self._since > ABANDONED_SECONDS


class StudyJournal:
    """The copy of some rows' Optuna studies.

    Args:
        path: its file, see `check_path`. Several controllers and optuna-dashboard may write to it in turn.
        rows: the rows' Optuna studies.
    """

    def __init__(self, path: Path, rows: Sequence[Tuning]) -> None:
        self.path, self.rows = path.absolute(), rows
        self._lock = _SharedLock(self.path)
        self._journal: Journal | None = None
        self._said = ""

    def update(self) -> str:
        """Bring the copy up to date. Return a new reason why that failed; the next update tries again."""
        said = ""
        try:
            with damage_named(self.path, "remove it: it is a copy and is made again"):
                if self._journal is None:
                    self._open()
                for row in self.rows:
                    self._copy(row)
        except (OSError, RuntimeError, UserError) as error:  # RuntimeError: Optuna's, where others change trials
            self._journal = None
            said = f"--journal {self.path}: not up to date ({error}); the study continues"
        news, self._said = said if said != self._said else "", said
        return news

    def _open(self) -> None:
        self._lock.acquire()
        try:
            heal_journal(self.path)
        finally:
            self._lock.release()
        self._journal = Journal(self.path, self._lock)
        self._storage = JournalStorage(self._journal)

    def _study(self, row: Tuning) -> optuna.Study:
        """The copy of a row's study; made if it is not there."""
        name = row.study.study_name
        if name in optuna.get_all_study_names(self._storage):
            study = optuna.load_study(study_name=name, storage=self._storage)
        else:
            study = optuna.create_study(study_name=name, storage=self._storage, directions=row.study.directions)
        if "label" not in study.user_attrs:
            study.set_user_attr("label", replicate_title(row.row.label, row.row.replicate))
        return study

    def _copy(self, row: Tuning) -> None:
        """Write what the copy lacks of a row: new trials, attributes and values at once, then ends."""
        assert self._journal is not None
        study, trials = self._study(row), row.trials()
        known = study.get_trials(deepcopy=False)
        if not _is_earlier(known, trials):  # the row began again, or its journal was replaced
            optuna.delete_study(study_name=study.study_name, storage=self._storage)
            study, known = self._study(row), []
        first, others = trials[len(known) :][:1], trials[len(known) + 1 :]
        for trial in first:
            study.add_trial(trial)  # apart: Optuna can add a trial unread only after one that it read
        unfinished = [trial for trial in known if not trial.state.is_finished()]
        with self._journal.one_write():
            for copy in unfinished:
                trial = trials[copy.number]
                complement(study, copy, trial.user_attrs, trial.intermediate_values)
            for trial in others:
                study.add_trial(trial)
        study.get_trials(deepcopy=False)  # reads what was written: the value of a pruned trial is its last one
        with self._journal.one_write():
            for trial in (trials[copy.number] for copy in unfinished):
                if trial.state.is_finished():
                    value = trial.value if trial.state is TrialState.COMPLETE else None
                    study.tell(trial.number, value, trial.state)


def _is_earlier(known: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> bool:
    """True if the copied trials are the row's, as they are or were."""
    return len(known) <= len(trials) and all(
        copy.params == trial.params and (not copy.state.is_finished() or copy.state is trial.state)
        for copy, trial in zip(known, trials, strict=False)
    )
