"""The picture drawn: sections that share the lines there are, tables whose names alone give way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slurm.monitoring.heading import heading
from slurm.monitoring.logs import LogTail
from slurm.monitoring.picture import Picture, RowCount
from slurm.monitoring.trials import AttemptStory
from slurm.monitoring.watching import Condition, Watched
from slurm.monitoring.words import duration, figure, percent, sparkline

WIDE, WIDER, WIDEST = 100, 120, 150
"""Columns of the terminal from which more is shown."""

TITLE = "bold cyan"
LATEST = 5
"""Runs that ended last, shown where there is room."""


@dataclass(frozen=True)
class Column:
    """A table's column: `flexible` ones are shortened where it gets narrow; `since` is the width that shows it."""

    title: str
    right: bool = False
    flexible: bool = False
    since: int = 0
    style: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the screen: how many lines it wants, and how it is drawn in so many."""

    wants: int
    draw: Callable[[int], RenderableType]


def draw(picture: Picture, width: int, height: int | None, log: LogTail | None = None, foot: str = "") -> Group:
    """The whole screen, `width` columns wide, in at most `height` lines; None: as many as it takes."""
    top = heading(picture, width)
    sections = [_running(picture, width), _waiting(picture, width), _rows(picture, width), _failures(picture, width)]
    if log is not None:
        sections.append(_log(log, width))
    sections.append(_latest(picture, width))
    room = 10**9 if height is None else height - len(top) - bool(foot)
    spaced = sum(section.wants + 1 for section in sections if section.wants) <= room
    given = share(room - (len(sections) if spaced else 0), [section.wants for section in sections])
    parts: list[RenderableType] = [*top]
    for section, lines in zip(sections, given, strict=True):
        if lines:
            parts += [Text(), section.draw(lines)] if spaced else [section.draw(lines)]
    if foot:
        parts.append(Text(foot, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def share(lines: int, wants: Sequence[int]) -> list[int]:
    """Lines for each section: alike for all, what one does not want goes to the others; the last gets what is left.

    A title without a line under it is of no use: who would get a single line gets none.
    """
    given = [0] * len(wants)
    for some in (range(len(wants) - 1), range(len(wants) - 1, len(wants))):
        while lines > 0 and any(given[i] < wants[i] for i in some):
            for i in some:
                if lines > 0 and given[i] < wants[i]:
                    given[i], lines = given[i] + 1, lines - 1
    return [number if number > 1 else 0 for number in given]


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int, lines: int) -> RenderableType:
    """A titled table in at most `lines` lines, which says how many it leaves out; so are columns without a word."""
    shown = rows if len(rows) < lines else rows[: max(lines - 2, 1)]
    kept = [i for i, c in enumerate(columns) if width >= c.since and (i == 0 or any(str(row[i]) for row in rows))]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=TITLE)
    for i in kept:
        column = columns[i]
        title = Text(column.title, no_wrap=True, overflow="ellipsis")
        table.add_column(
            title, justify="right" if column.right else "left", no_wrap=not column.flexible, style=column.style
        )
    for row in shown:
        table.add_row(*(_one_line(row[i]) for i in kept))
    more = len(rows) - len(shown) if lines > 2 else 0
    return Group(table, Text(f"… and {more:,} more", style="dim")) if more else table


def _one_line(cell: str | Text) -> Text:
    text = Text(cell) if isinstance(cell, str) else cell
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


_STATES = {
    Condition.STARTING: ("starting", "yellow"),
    Condition.LOST: ("its job is gone", "red"),
    Condition.CREATED: ("to be submitted", "dim"),
    Condition.INTERRUPTED: ("goes on later", "yellow"),
}


def _running(picture: Picture, width: int) -> Section:
    watched = picture.select(Condition.RUNNING, Condition.STARTING, Condition.LOST)
    selections = {w.trial.place.selection for w in watched}
    columns = [
        Column(f"RUNNING {len(watched)}", flexible=True, style="green"),
        Column(""),
        Column("try", right=True),
        Column("epoch", right=True),
        Column(selections.pop() if len(selections) == 1 else "valid", right=True),
        Column("acc %", right=True, since=WIDE),
        Column("on valid"),
        Column("on"),
        Column("used", right=True),
        Column("left", right=True),
        Column("to go", right=True, since=WIDE),
        Column("heard", right=True, since=WIDER),
    ]
    curve = 8 if width < WIDE else 16 if width < WIDER else 24
    rows = [_running_cells(w, picture.survey.taken, curve) for w in watched]
    return Section(len(rows) + 1 if rows else 0, lambda lines: _table(columns, rows, width, lines))


def _running_cells(watched: Watched, now: float, curve: int) -> list[str | Text]:
    trial, job = watched.trial, watched.job
    last = trial.last
    to_go = (trial.place.epochs - trial.epoch) * trial.pace if trial.pace else None
    runs = watched.condition is Condition.RUNNING
    return [
        trial.place.label,
        trial.place.name,
        str(last.number) if last else "",
        f"{trial.epoch}/{trial.place.epochs}",
        figure(trial.value),
        percent(trial.accuracy),
        sparkline(trial.curve, curve) if runs else Text(*_STATES[watched.condition]),
        (job.node if job and job.node else last.node) if last else "",
        job.used if job else duration(last.seconds(now)) if last and last.started and runs else "",
        job.left if job else "",
        duration(to_go) if to_go is not None and runs else "",
        duration(now - trial.heard) if trial.heard else "",
    ]


def _waiting(picture: Picture, width: int) -> Section:
    watched = picture.select(Condition.WAITING, Condition.CREATED, Condition.INTERRUPTED)
    columns = [
        Column(f"WAITING {len(watched)}", flexible=True, style="yellow"),
        Column(""),
        Column("try", right=True),
        Column("epoch", right=True),
        Column("state"),
        Column("why", flexible=True),
        Column("start"),
        Column("partition", since=WIDER),
    ]
    rows = [_waiting_cells(w) for w in watched]
    return Section(len(rows) + 1 if rows else 0, lambda lines: _table(columns, rows, width, lines))


def _waiting_cells(watched: Watched) -> list[str | Text]:
    trial, job, last = watched.trial, watched.job, watched.trial.last
    state = Text(job.state.lower()) if job else Text(*_STATES.get(watched.condition, ("", "")))
    why = job.reason if job else f"{last.end}: {last.message}" if last and last.end else ""
    start = job.start.replace("T", " ") if job and job.start not in ("", "N/A") else ""
    epoch = f"{trial.epoch}/{trial.place.epochs}" if trial.epoch else ""
    attempt = str(last.number) if last else ""
    return [trial.place.label, trial.place.name, attempt, epoch, state, why, start, job.partition if job else ""]


def _rows(picture: Picture, width: int) -> Section:
    selections = {row.row.selection for row in picture.rows}
    columns = [
        Column(f"ROWS {len(picture.rows)}", flexible=True),
        Column("trials", right=True),
        Column("seeds", right=True),
        Column("running", right=True),
        Column("failed", right=True),
        Column(f"best {selections.pop() if len(selections) == 1 else 'valid'}", right=True),
        Column("acc %", right=True),
        Column("of"),
        Column("", flexible=True, since=WIDER, style="dim"),
        Column("", flexible=True, since=WIDEST, style="dim"),
    ]

    def lines_of(lines: int) -> RenderableType:
        counts = picture.rows if len(picture.rows) < lines else sorted(picture.rows, key=_interest)
        return _table(columns, [_row_cells(row) for row in counts], width, lines)

    return Section(len(picture.rows) + 1 if picture.rows else 0, lines_of)


def _interest(row: RowCount) -> int:
    """What is shown first where not all rows fit: those at work, those that are begun, those to come, the rest."""
    return 0 if row.busy or row.waiting else 3 if not row.left.runs else 1 if row.asked else 2


def _row_cells(row: RowCount) -> list[str | Text]:
    of, best = row.row, row.best
    done = not row.left.runs
    return [
        Text(of.name, style="green" if row.busy else "dim" if not row.asked else ""),
        f"{row.settled}/{of.trials}" if of.trials else str(row.settled),
        Text(f"{row.confirmed}/{of.seeds}" if of.seeds else str(row.confirmed), style="bold" if done else ""),
        str(row.busy or ""),
        Text(str(row.failed or ""), style="red"),
        figure(best.value) if best else "",
        percent(best.accuracy) if best else "",
        best.name if best else "",
        of.label,
        of.group,
    ]


def _failures(picture: Picture, width: int) -> Section:
    columns = [
        Column("FAILURES", style="red"),
        Column("attempts", right=True),
        Column("trials now", right=True),
        Column("the latest", flexible=True),
        Column("said", flexible=True),
    ]
    rows: list[list[str | Text]] = [
        [f.failure, str(f.attempts), str(f.trials), f"{f.latest.place.label} {f.latest.place.name}", f.message]
        for f in picture.failures
    ]
    return Section(len(rows) + 1 if rows else 0, lambda lines: _table(columns, rows, width, lines))


def _latest(picture: Picture, width: int) -> Section:
    ended = picture.select(Condition.COMPLETE, Condition.PRUNED, Condition.DIVERGED, Condition.FAILED)
    stories = [(w, w.trial.last) for w in ended if w.trial.last is not None]
    latest = sorted(stories, key=lambda pair: -(pair[1].ended or 0.0))[:LATEST]
    columns = [
        Column("ENDED LAST", flexible=True),
        Column(""),
        Column("how"),
        Column("valid", right=True),
        Column("acc %", right=True),
        Column("took", right=True),
        Column("ago", right=True),
    ]
    rows = [_latest_cells(watched, last, picture.survey.taken) for watched, last in latest]
    return Section(len(rows) + 1 if rows else 0, lambda lines: _table(columns, rows[: lines - 1], width, lines))


def _latest_cells(watched: Watched, last: AttemptStory, now: float) -> list[str | Text]:
    trial = watched.trial
    return [
        trial.place.label,
        trial.place.name,
        Text(watched.condition.value, style="" if watched.condition is Condition.COMPLETE else "red"),
        figure(trial.value),
        percent(trial.accuracy),
        duration(sum(attempt.seconds(now) for attempt in trial.attempts)),
        duration(now - last.ended) if last.ended else "",
    ]


def _log(log: LogTail, width: int) -> Section:
    title = f"LOG {log.title}"
    if len(title) + len(log.path) + 2 <= width:
        title += f": {log.path}"

    def lines_of(lines: int) -> RenderableType:
        return Group(_one_line(Text(title, style=TITLE)), *(_one_line(line) for line in log.lines[-(lines - 1) :]))

    return Section(1 + len(log.lines), lines_of)
