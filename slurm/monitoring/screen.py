"""Draw the overview: sections share the lines of the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from mmkd.formatting import clock, figure, percent, short_path, sparkline
from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.monitoring.heading import heading
from slurm.monitoring.overview import FailureCount, Overview, RowLine, row_lines
from slurm.monitoring.rows import LogTail
from slurm.monitoring.tables import TITLE, Cell, Column, T, Unsteered, table
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


def draw(
    overview: Overview,
    width: int,
    height: int | None,
    log: LogTail | None = None,
    foot: str = "",
    *,
    each_replicate: bool = False,
) -> Group:
    """The whole screen, `width` columns wide, in at most `height` lines; None: as many as it takes."""
    top = heading(overview, width, note_lines=1 if height is not None and height < TALL else 3)
    sections = [
        _running(overview, width),
        _waiting(overview, width),
        _rows(row_lines(overview.rows, each_replicate=each_replicate), width),
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
    """Lines for each section: equal shares, unwanted lines go to the others, and the last gets what is left.

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


def _section(columns: Sequence[Column[T]], items: Sequence[T], width: int) -> Section:
    return Section(len(items) + 1 if items else 0, lambda lines: table(columns, items, width, lines))


def _names(title: str, style: str = "") -> tuple[Column[Watched], Column[Watched]]:
    return (
        Column(title, lambda w: w.trial.entry.label, flexible="name", style=style),
        Column("", lambda w: w.trial.entry.name),
    )


def _metric(selections: Iterable[str]) -> str:
    """The selection metric if it is the same everywhere, else "valid"."""
    return next(iter(found)) if len(found := set(selections)) == 1 else "valid"


def _running(overview: Overview, width: int) -> Section:
    watched, now = overview.select(State.RUNNING, *Sign), overview.survey.taken
    curve = 8 if width < WIDE else 16 if width < WIDER else 24

    def progress(w: Watched) -> Cell:
        return sparkline(w.trial.curve, curve) if w.runs else Text(*_STATES[w.shown])

    def used(w: Watched) -> str:
        last = w.trial.last
        return w.job.used if w.job else clock(last.seconds(now)) if last and last.ran.started and w.runs else ""

    def to_go(w: Watched) -> str:
        trial = w.trial
        return clock((trial.entry.epochs - trial.epoch) * trial.pace) if trial.pace and w.runs else ""

    columns = [
        *_names(f"RUNNING {len(watched)}", "green"),
        Column("try", _attempt, right=True, since=NARROW),
        Column("epoch", lambda w: f"{w.trial.epoch}/{w.trial.entry.epochs}", right=True),
        Column(_metric(w.trial.entry.selection for w in watched), lambda w: figure(w.trial.value), right=True),
        Column("acc %", lambda w: percent(w.trial.accuracy), right=True, since=WIDE),
        Column("on valid", progress, since=NARROW),
        Column("on", lambda w: (w.job and w.job.node) or (w.trial.last.node if w.trial.last else ""), since=NARROW),
        Column("used", used, right=True),
        Column("left", lambda w: w.job.left if w.job else "", right=True),
        Column("to go", to_go, right=True, since=WIDE),
        Column("heard", lambda w: clock(now - w.trial.heard) if w.trial.heard else "", right=True, since=WIDER),
    ]
    return _section(columns, watched, width)


def _attempt(watched: Watched) -> str:
    return str(watched.trial.last.number) if watched.trial.last else ""


def _waiting(overview: Overview, width: int) -> Section:
    watched = overview.select(State.PENDING, State.SAMPLED, State.RETRY_DUE)

    def why(w: Watched) -> str:
        last = w.trial.last
        return w.job.reason if w.job else f"{last.end}: {last.message}" if last and last.end else ""

    def start(w: Watched) -> str:
        """Month to minute."""
        return w.job.start[5:16].replace("T", " ") if w.job and w.job.start not in ("", "N/A") else ""

    columns = [
        *_names(f"WAITING {len(watched)}", "yellow"),
        Column("try", _attempt, right=True),
        Column("epoch", lambda w: f"{w.trial.epoch}/{w.trial.entry.epochs}" if w.trial.epoch else "", right=True),
        Column("state", lambda w: w.job.state.lower() if w.job else Text(*_STATES[w.shown])),
        Column("why", why, flexible="prose"),
        Column("start", start),
        Column("partition", lambda w: w.job.partition if w.job else "", since=WIDER),
    ]
    return _section(columns, watched, width)


def _rows(rows: Sequence[RowLine], width: int) -> Section:
    def of(done: int, wanted: int) -> str:
        return f"{done}/{wanted}" if wanted else str(done)

    def trials(r: RowLine) -> str:
        return of(r.sum(lambda c: c.ended), r.sum(lambda c: c.row.trials))

    def final(r: RowLine) -> Text:
        runs = of(r.sum(lambda c: c.final), r.sum(lambda c: c.row.seeds))
        return Text(runs, style="" if r.left else "bold")

    def name(r: RowLine) -> Text:
        return Text(r.title, style="green" if _busy(r) else "" if _sampled(r) else "dim")

    several = any(len(r.counts) > 1 for r in rows)
    replicates = Column[RowLine]("done", lambda r: f"{r.done}/{len(r.counts)}", right=True)
    columns: list[Column[RowLine]] = [
        Column(f"ROWS {len(rows)}", name, flexible="name"),
        *([replicates] if several else []),
        Column("trials", trials, right=True),
        Column("seeds", final, right=True),
        Column("running", lambda r: str(_busy(r) or ""), right=True, since=NARROW),
        Column("failed", lambda r: Text(str(r.sum(lambda c: c.failed) or ""), style="red"), right=True, since=NARROW),
        Column(
            f"best {_metric(r.first.selection for r in rows)}",
            lambda r: figure(r.mean_of_best(lambda trial: trial.value)),
            right=True,
        ),
        Column("acc %", lambda r: percent(r.mean_of_best(lambda trial: trial.accuracy)), right=True),
        Column("of", lambda r: r.best_of),
        Column("", lambda r: r.first.label, flexible="prose", since=WIDER, style="dim"),
        Column("", lambda r: r.first.group, flexible="prose", since=WIDEST, style="dim"),
    ]

    def lines_of(lines: int) -> RenderableType:
        return table(columns, rows if len(rows) < lines else sorted(rows, key=_interest), width, lines)

    return Section(len(rows) + 1 if rows else 0, lines_of)


def _busy(row: RowLine) -> int:
    return row.sum(lambda count: count.busy)


def _sampled(row: RowLine) -> int:
    return row.sum(lambda count: count.sampled)


def _interest(row: RowLine) -> int:
    """Sort rows where not all fit: running or pending, begun, to come, the rest."""
    is_active = _busy(row) or row.sum(lambda count: count.pending)
    return 0 if is_active else 3 if not row.left else 1 if _sampled(row) else 2


def _failures(overview: Overview, width: int) -> Section:
    columns: list[Column[FailureCount]] = [
        Column("FAILURES", lambda f: f.failure, style="red"),
        Column("attempts", lambda f: str(f.attempts), right=True),
        Column("still so", lambda f: str(f.trials), right=True),
        Column("the latest", lambda f: f"{f.latest.entry.label} {f.latest.entry.name}", flexible="name"),
        Column("said", lambda f: f.message, flexible="prose"),
    ]
    return _section(columns, overview.failures, width)


def _latest(overview: Overview, width: int) -> Section:
    ended, now = overview.select(*Status, State.FAILED), overview.survey.taken

    def seconds_ago(w: Watched) -> float:
        return now - ((w.trial.last and w.trial.last.ended) or 0.0)

    latest = sorted((w for w in ended if w.trial.last), key=seconds_ago)[:LATEST]
    columns = [
        *_names("ENDED LAST"),
        Column("how", lambda w: Text(w.shown.value, style="" if w.shown is Status.COMPLETE else "red")),
        Column("valid", lambda w: figure(w.trial.value), right=True),
        Column("acc %", lambda w: percent(w.trial.accuracy), right=True),
        Column("took", lambda w: clock(sum(attempt.seconds(now) for attempt in w.trial.attempts)), right=True),
        Column("ago", lambda w: clock(seconds_ago(w)) if seconds_ago(w) < now else "", right=True),
    ]
    return Section(len(latest) + 1 if latest else 0, lambda lines: table(columns, latest[: lines - 1], width, lines))


def _log(log: LogTail, width: int) -> Section:
    title = Text(f"LOG {short_path(log.path, width - 4)}", style=TITLE)

    def lines_of(lines: int) -> RenderableType:
        return Group(title, *(Text(line, no_wrap=True, overflow="ellipsis") for line in log.lines[-(lines - 1) :]))

    return Section(1 + len(log.lines), lines_of)
