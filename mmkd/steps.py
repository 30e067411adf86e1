"""Show on standard error what a slow command is doing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmkd.terminal import printable

PIPED_SECONDS = 5.0
"""Least seconds between two lines where standard error is no terminal, so that quick commands print none."""


@contextmanager
def show_steps(total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function that is called with each next step, in words.

    A terminal shows the step and the elapsed time in one line, which disappears in the end, with a bar if the number of
    steps is known. Elsewhere a line is printed at most every `PIPED_SECONDS`.
    """
    if sys.stderr.isatty():
        with _live(total) as live:
            yield live
        return
    printed = time.monotonic()

    def step(what: str) -> None:
        nonlocal printed
        if time.monotonic() - printed >= PIPED_SECONDS:
            print(printable(what), file=sys.stderr, flush=True)
            printed = time.monotonic()

    yield step


@contextmanager
def _live(total: int | None) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(),) if total is None else (BarColumn(20), MofNCompleteColumn())
    shown = Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # else what a command prints into a pipe would end here
    )
    with shown:
        task = shown.add_task("", total=total)
        begun = 0

        def step(what: str) -> None:
            nonlocal begun
            shown.update(task, description=printable(what), completed=begun)
            begun += 1

        yield step
