"""Exclude nodes on which jobs end before their trial starts."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from mmkd.formatting import count, duration

IN_A_ROW = 3
"""So many jobs in a row end on a node before their trial starts: it is excluded."""
FIRST_EXCLUSION = 1800.0
"""Seconds until an excluded node is tried again, doubled each time."""
MOST_NODES = 5
"""If jobs end so on this many nodes and none has started meanwhile, the cause is not the nodes."""


@dataclass
class _Node:
    failures: int = 0
    exclusions: int = 0
    until: float = 0.0
    """Excluded until this monotonic time."""


@dataclass
class BadNodes:
    """Nodes of a study on which jobs ended before their trial started.

    A node that fails several jobs in a row is excluded for a while. `hopeless` says why no node is left, "" while one
    may be; it begins with `what`.
    """

    what: str = "jobs end before their trial starts"
    hopeless: str = ""
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _words: str = ""
    """The last words of a job on a node."""
    _failing: dict[str, None] = field(default_factory=dict)
    """Nodes that failed since a job started last."""

    @property
    def excluded(self) -> tuple[str, ...]:
        """Names of the nodes that are excluded now."""
        now = time.monotonic()
        return tuple(name for name, node in self._nodes.items() if node.until > now)

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the nodes that are excluded, or have failed since a job started last."""
        return tuple(dict.fromkeys((*self.excluded, *filter(None, self._failing))))

    def start(self, node: str) -> None:
        """Note that a trial has started on a node."""
        self._failing.clear()
        self.hopeless = ""
        if node in self._nodes:
            self._nodes[node] = _Node()

    def fail(self, name: str, avoided: Collection[str], message: str, *, others_run: bool) -> str:
        """Note that a job ended on a node before its trial started. Return a line if the node is excluded now, else "".

        Args:
            name: the node's; "" if unknown.
            avoided: the nodes that the job should not have run on. If it ran on one of them, there is no other.
            message: the job's last words.
            others_run: True if trials of the study run elsewhere.
        """
        node = self._nodes.setdefault(name, _Node())
        node.failures += 1
        self._failing[name] = None
        self._words = message if name else self._words or message
        # Slurm may accept a job that avoids all nodes, and end it on none.
        has_no_other = name in avoided or (not name and (bool(avoided) or node.failures >= IN_A_ROW))
        if not others_run and (has_no_other or len(self._failing) >= MOST_NODES):
            where = ", ".join(filter(None, self._failing)) or "the cluster"
            self.hopeless = f"{self.what}, on every node that was tried ({where}): {self._words}"
        if not name or node.failures < IN_A_ROW or node.until > time.monotonic():
            return ""
        pause = FIRST_EXCLUSION * 2.0**node.exclusions
        node.exclusions += 1
        node.until = time.monotonic() + pause
        return (
            f"node {name} is excluded for {duration(pause)}: {count(node.failures, 'job')} in a row ended there before "
            f"their trial started, the last with: {message}"
        )
