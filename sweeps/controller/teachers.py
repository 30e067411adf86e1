"""Track the teachers of a study's rows: each is trained once, by the controller that claims it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from mmkd.attempts import read_attempts
from mmkd.files import remove_leftovers
from mmkd.lock import FileLock, LockHeld
from mmkd.result_file import Status, clean_up, has_its_weights, set_aside, usable_result
from mmkd.rundir import TrialDir
from mmkd.trial_state import State, decide, why_failed
from sweeps.controller.tasks import Task, candidate_tasks, teacher_task
from sweeps.rows import TUNING_SEED, Row
from sweeps.teacher_search import TeacherSearch


class Teachers:
    """Teachers that are trained, that failed, and that this controller may train.

    Args:
        on_choice: called when the teacher of a search is chosen, with the choice in words.
    """

    def __init__(self, on_choice: Callable[[TeacherSearch, str], None] = lambda search, how: None) -> None:
        self.on_choice = on_choice
        self.launch = secrets.token_hex(4)
        """The word of this launch in the records of its attempts."""
        self._candidates: dict[str, list[Task]] = {}
        self._tasks: dict[tuple[str, int], Task] = {}
        self._claims: dict[TrialDir, FileLock] = {}
        self._locks: dict[TrialDir, FileLock] = {}
        """Of claims that others hold too: a lock remembers the heartbeats that it has seen."""
        self._ready: set[TrialDir] = set()
        self.failed: dict[TrialDir, str] = {}

    def needed(self, row: Row, seed: int) -> list[Task]:
        """Return the teachers that a row and seed wait for: the candidates until one is chosen, then their own."""
        if row.search is None or row.search.chosen() is not None:
            return [self.task(row, seed)]
        if row.digest not in self._candidates:
            self._candidates[row.digest] = candidate_tasks(row.search)
        return self._candidates[row.digest]

    def task(self, row: Row, seed: int) -> Task:
        """Return the teacher of a row and seed; cached, because every round asks."""
        key = (row.digest, seed)
        if key not in self._tasks:
            self._tasks[key] = teacher_task(row, seed)
        return self._tasks[key]

    def ready(self, row: Row, seed: int) -> bool:
        """True if the teacher of a row and seed is trained, or none is needed."""
        if row.student.teacher is None:
            return True
        if row.search is not None and not self._choose(row, row.search):
            return False
        return self.is_trained(self.task(row, seed).directory)

    def is_trained(self, directory: TrialDir) -> bool:
        """True if a teacher is trained."""
        if directory not in self._ready and directory not in self.failed:
            self._look(directory)
        return directory in self._ready

    def _choose(self, row: Row, search: TeacherSearch) -> bool:
        """True if one of the candidates is chosen; chooses once all of them are trained or failed."""
        if search.chosen() is not None:
            return True
        trained = [task.directory for task in self.needed(row, TUNING_SEED) if self.is_trained(task.directory)]
        if not trained or any(directory not in self.failed for directory in search.candidates.keys() - set(trained)):
            return False
        self.on_choice(search, search.choose())
        return True

    def claim(self, directory: TrialDir) -> bool:
        """True if this controller may train the teacher: no other one does."""
        if directory in self._claims:
            return True
        directory.path.mkdir(parents=True, exist_ok=True)
        lock = self._locks.setdefault(directory, FileLock(directory.claim))
        try:
            lock.acquire()
        except LockHeld:
            return False
        self._claims[directory] = lock
        return True

    def renew(self) -> None:
        """Renew the heartbeats of all claims."""
        for lock in self._claims.values():
            lock.renew()

    def release(self) -> None:
        """Release all claims and remove the temporary files of trials killed while storing a teacher's outputs."""
        for lock in self._claims.values():
            lock.release()
        self._claims.clear()
        for directory in self._ready:
            remove_leftovers(directory.path)

    def _look(self, directory: TrialDir) -> None:
        state = decide(directory, self.launch)
        if state.is_live:
            return  # its end has not been recorded yet
        result = usable_result(directory)
        if result is not None and not has_its_weights(directory, result):
            set_aside(directory, f"{directory.weights}: not the weights that {directory.result.name} names")
            return
        if result is not None and result.status is Status.COMPLETE:
            self._ready.add(directory)
        elif result is not None:
            self.failed[directory] = f"is {result.status}: {result.reason}"
        elif state is State.FAILED:
            self.failed[directory] = f"failed (no retries left): {why_failed(read_attempts(directory), self.launch)}"
        else:
            return
        # A killed controller may have left its claim.
        if directory.claim.exists() and self.claim(directory):
            clean_up(directory)
            self._claims.pop(directory).release()
