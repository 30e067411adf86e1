"""Draw the overview: sections that share the lines there are, tables whose names alone give way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from mmkd.formatting import clock, figure, percent, short_path, sparkline
from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.monitoring.heading import heading
from slurm.monitoring.logs import LogTail
from slurm.monitoring.overview import Overview, RowCount
from slurm.monitoring.tables import TITLE, Cell, Column, Unsteered, cell, table
from slurm.monitoring.trials import AttemptStory
from slurm.monitoring.watching import Sign, Watched

NARROW, WIDE, WIDER, WIDEST = 72, 100, 120, 150
"""Columns of the terminal from which more is shown."""

TALL = 30
"""Lines of the terminal from which errors may take several."""

LATEST = 5
"""Runs that ended last, shown where there is room."""


@dataclass(frozen=True)
class Section:
    """A part of the screen: how many lines it wants, and how it is drawn in so many."""

    wants: int
    draw: Callable[[int], RenderableType]


def draw(overview: Overview, width: int, height: int | None, log: LogTail | None = None, foot: str = "") -> Group:
    """The whole screen, `width` columns wide, in at most `height` lines; None: as many as it takes."""
    top = heading(overview, width, note_lines=1 if height is not None and height < TALL else 3)
    sections = [
        _running(overview, width),
        _waiting(overview, width),
        _rows(overview, width),
        _failures(overview, width),
    ]
    if log is not None:
        sections.append(_log(log, width))
    sections.append(_latest(overview, width))
    room = 10**9 if height is None else height - len(top) - bool(foot)
    spaced = sum(section.wants + 1 for section in sections if section.wants) <= room
    given = share(room - (len(sections) if spaced else 0), [section.wants for section in sections])
    parts: list[RenderableType] = [*top]
    for section, lines in zip(sections, given, strict=True):
        if lines:
            parts += [Text(), section.draw(lines)] if spaced else [section.draw(lines)]
    if foot:
        parts.append(Text(foot, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(Unsteered(Group(*parts)))


def share(lines: int, wants: Sequence[int]) -> list[int]:
    """Lines for each section: alike for all, what one does not want goes to the others; the last gets what is left.

    A title without a line under it is of no use: who would get a single line gets none.
    """
    given, left = [0] * len(wants), lines
    for some in (range(len(wants) - 1), range(len(wants) - 1, len(wants))):
        while left > 0 and any(given[i] < wants[i] for i in some):
            for i in some:
                if left > 0 and given[i] < wants[i]:
                    given[i], left = given[i] + 1, left - 1
    if 1 not in given:
        return given
    last = len(given) - 1 - given[::-1].index(1)
    return share(lines, [0 if i == last else want for i, want in enumerate(wants)])


_STATES: dict[State | Sign | Status, tuple[str, str]] = {
    Sign.STARTING: ("starting", "yellow"),
    Sign.LOST: ("its job is gone", "red"),
    State.PENDING: ("submitted", ""),
    State.SAMPLED: ("to be submitted", "dim"),
    State.RETRY_DUE: ("to be retried", "yellow"),
}


def _running(overview: Overview, width: int) -> Section:
    watched = overview.select(State.RUNNING, *Sign)
    selections = {w.trial.place.selection for w in watched}
    columns = [
        Column(f"RUNNING {len(watched)}", flexible="name", style="green"),
        Column(""),
        Column("try", right=True, since=NARROW),
        Column("epoch", right=True),
        Column(selections.pop() if len(selections) == 1 else "valid", right=True),
        Column("acc %", right=True, since=WIDE),
        Column("on valid", since=NARROW),
        Column("on", since=NARROW),
        Column("used", right=True),
        Column("left", right=True),
        Column("to go", right=True, since=WIDE),
        Column("heard", right=True, since=WIDER),
    ]
    curve = 8 if width < WIDE else 16 if width < WIDER else 24
    rows = [_running_cells(w, overview.survey.taken, curve) for w in watched]
    return Section(len(rows) + 1 if rows else 0, lambda lines: table(columns, rows, width, lines))


def _running_cells(watched: Watched, now: float, curve: int) -> list[Cell]:
    trial, job = watched.trial, watched.job
    last = trial.last
    to_go = (trial.place.epochs - trial.epoch) * trial.pace if trial.pace else None
    runs = watched.shown is State.RUNNING
    return [
        trial.place.label,
        trial.place.name,
        str(last.number) if last else "",
        f"{trial.epoch}/{trial.place.epochs}",
        figure(trial.value),
        percent(trial.accuracy),
        sparkline(trial.curve, curve) if runs else Text(*_STATES[watched.shown]),
        (job.node if job and job.node else last.node) if last else "",
        job.used if job else clock(last.seconds(now)) if last and last.started and runs else "",
        job.left if job else "",
        clock(to_go) if to_go is not None and runs else "",
        clock(now - trial.heard) if trial.heard else "",
    ]


def _waiting(overview: Overview, width: int) -> Section:
    watched = overview.select(State.PENDING, State.SAMPLED, State.RETRY_DUE)
    columns = [
        Column(f"WAITING {len(watched)}", flexible="name", style="yellow"),
        Column(""),
        Column("try", right=True),
        Column("epoch", right=True),
        Column("state"),
        Column("why", flexible="prose"),
        Column("start"),
        Column("partition", since=WIDER),
    ]
    rows = [_waiting_cells(w) for w in watched]
    return Section(len(rows) + 1 if rows else 0, lambda lines: table(columns, rows, width, lines))


def _waiting_cells(watched: Watched) -> list[Cell]:
    trial, job, last = watched.trial, watched.job, watched.trial.last
    state = Text(job.state.lower()) if job else Text(*_STATES[watched.shown])
    why = job.reason if job else f"{last.end}: {last.message}" if last and last.end else ""
    start = job.start[5:16].replace("T", " ") if job and job.start not in ("", "N/A") else ""  # month to minute
    epoch = f"{trial.epoch}/{trial.place.epochs}" if trial.epoch else ""
    attempt = str(last.number) if last else ""
    return [trial.place.label, trial.place.name, attempt, epoch, state, why, start, job.partition if job else ""]


def _rows(overview: Overview, width: int) -> Section:
    selections = {row.row.selection for row in overview.rows}
    columns = [
        Column(f"ROWS {len(overview.rows)}", flexible="name"),
        Column("trials", right=True),
        Column("seeds", right=True),
        Column("running", right=True, since=NARROW),
        Column("failed", right=True, since=NARROW),
        Column(f"best {selections.pop() if len(selections) == 1 else 'valid'}", right=True),
        Column("acc %", right=True),
        Column("of"),
        Column("", flexible="prose", since=WIDER, style="dim"),
        Column("", flexible="prose", since=WIDEST, style="dim"),
    ]

    def lines_of(lines: int) -> RenderableType:
        counts = overview.rows if len(overview.rows) < lines else sorted(overview.rows, key=_interest)
        return table(columns, [_row_cells(row) for row in counts], width, lines)

    return Section(len(overview.rows) + 1 if overview.rows else 0, lines_of)


def _interest(row: RowCount) -> int:
    """Sort rows where not all fit: those at work, those that are begun, those to come, the rest."""
    return 0 if row.busy or row.pending else 3 if not row.left.runs else 1 if row.sampled else 2


def _row_cells(row: RowCount) -> list[Cell]:
    of, best = row.row, row.best
    done = not row.left.runs
    return [
        Text(of.name, style="green" if row.busy else "dim" if not row.sampled else ""),
        f"{row.ended}/{of.trials}" if of.trials else str(row.ended),
        Text(f"{row.final}/{of.seeds}" if of.seeds else str(row.final), style="bold" if done else ""),
        str(row.busy or ""),
        Text(str(row.failed or ""), style="red"),
        figure(best.value) if best else "",
        percent(best.accuracy) if best else "",
        best.name if best else "",
        of.label,
        of.group,
    ]


def _failures(overview: Overview, width: int) -> Section:
    columns = [
        Column("FAILURES", style="red"),
        Column("attempts", right=True),
        Column("still so", right=True),
        Column("the latest", flexible="name"),
        Column("said", flexible="prose"),
    ]
    rows: list[list[Cell]] = [
        [f.failure, str(f.attempts), str(f.trials), f"{f.latest.place.label} {f.latest.place.name}", f.message]
        for f in overview.failures
    ]
    return Section(len(rows) + 1 if rows else 0, lambda lines: table(columns, rows, width, lines))


def _latest(overview: Overview, width: int) -> Section:
    ended = overview.select(*Status, State.FAILED)
    stories = [(w, w.trial.last) for w in ended if w.trial.last is not None]
    latest = sorted(stories, key=lambda pair: -(pair[1].ended or 0.0))[:LATEST]
    columns = [
        Column("ENDED LAST", flexible="name"),
        Column(""),
        Column("how"),
        Column("valid", right=True),
        Column("acc %", right=True),
        Column("took", right=True),
        Column("ago", right=True),
    ]
    rows = [_latest_cells(watched, last, overview.survey.taken) for watched, last in latest]
    return Section(len(rows) + 1 if rows else 0, lambda lines: table(columns, rows[: lines - 1], width, lines))


def _latest_cells(watched: Watched, last: AttemptStory, now: float) -> list[Cell]:
    trial = watched.trial
    return [
        trial.place.label,
        trial.place.name,
        Text(watched.shown.value, style="" if watched.shown is Status.COMPLETE else "red"),
        figure(trial.value),
        percent(trial.accuracy),
        clock(sum(attempt.seconds(now) for attempt in trial.attempts)),
        clock(now - last.ended) if last.ended else "",
    ]


def _log(log: LogTail, width: int) -> Section:
    title = Text(f"LOG {short_path(log.path, width - 4)}", style=TITLE)

    def lines_of(lines: int) -> RenderableType:
        return Group(title, *(cell(line, Column(""), width) for line in log.lines[-(lines - 1) :]))

    return Section(1 + len(log.lines), lines_of)
