"""The first lines: how far it is, when it will be done, what it costs, and what the reader should know."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from textwrap import wrap

from rich.text import Text

from slurm.monitoring.overview import Picture
from slurm.monitoring.remaining import Eta
from slurm.monitoring.watching import BUSY, Condition
from slurm.monitoring.words import count, roughly, short_path

BETWEEN = " · "


def heading(picture: Picture, width: int, note_lines: int) -> list[Text]:
    """The lines, none longer than `width`; notes take at most `note_lines` each."""
    lines = [_title(picture, width)]
    for parts in (_progress(picture), _forecast(picture), _costs(picture)):
        lines += _fill(parts, width)
    for text, style in _notes(picture):
        lines += [Text(line, style=style) for line in wrap(text, width, max_lines=note_lines, placeholder=" …")]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _fill(parts: Iterable[Text], width: int) -> list[Text]:
    """Parts one after the other, as many as fit into each line."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(BETWEEN) + part.cell_len <= width:
            lines[-1].append(BETWEEN, style="dim").append(part)
        else:
            lines.append(part)
    return lines


def _title(picture: Picture, width: int) -> Text:
    names = [study.name for study in picture.survey.studies]
    name = names[0] if len(names) == 1 else f"{len(names)} studies" if names else "no study"
    clock = time.strftime("%a %H:%M:%S", time.localtime(picture.survey.taken))
    line = Text.assemble((name, "bold"), "  ")
    line.append(short_path(picture.survey.root, width - line.cell_len - len(clock) - 2), style="dim")
    line.truncate(width - len(clock) - 2, overflow="ellipsis")
    line.pad_right(width - len(clock) - line.cell_len)
    return line.append(clock, style="dim")


def _progress(picture: Picture) -> Iterator[Text]:
    failed = picture.count(Condition.FAILED)
    total = picture.left + picture.finished + failed
    share = f" ({100 * picture.finished // total} %)" if total else ""
    yield Text(f"{picture.finished:,} of {count(total, 'run')} done{share}")
    if picture.teachers_needed:
        yield Text(f"teachers {picture.teachers_trained}/{picture.teachers_needed}")
    yield Text(f"{picture.count(*BUSY):,} running")
    for number, what, style in (
        (picture.count(Condition.WAITING), "waiting", ""),
        (picture.count(Condition.INTERRUPTED), "interrupted", "yellow"),
        (picture.count(Condition.LOST), "lost", "red"),
        (picture.count(Condition.DIVERGED), "diverged", ""),
        (picture.count(Condition.PRUNED), "pruned", ""),
        (failed, "failed", "red"),
    ):
        if number:
            yield Text(f"{number:,} {what}", style=style)


def _forecast(picture: Picture) -> Iterator[Text]:
    eta = picture.eta
    if not isinstance(eta, Eta):
        yield Text(eta)
        return
    end = time.localtime(picture.survey.taken + eta.seconds)
    until = time.strftime("%H:%M" if eta.seconds < 43200 else "%a %d %b %H:%M", end)
    yield Text(f"about {roughly(eta.seconds)} to go, until {until}")
    slots = f"{eta.slots:.1f}" if eta.slots < 10 else f"{eta.slots:.0f}"
    yield Text(f"{count(eta.runs, 'run')} of {roughly(eta.mean)} (as {eta.learned:,} took) on {slots} slots")


def _costs(picture: Picture) -> Iterator[Text]:
    hours = picture.gpu_hours
    yield Text(f"{count(picture.count(*BUSY), 'slot')} busy")
    spent = f"GPU-hours {_hours(hours.spent)}"
    if hours.limit is None:
        yield Text(spent)
    else:
        left = max(hours.limit - hours.spent, 0.0)
        yield Text(f"{spent} of {hours.limit:g}, {_hours(left)} left", style="" if left else "red")
    for holder in picture.controllers:
        yield Text(f"controller: process {holder.pid} on {holder.host}, heard {roughly(holder.heard)} ago")
    if picture.controllers or not picture.left:
        return
    for job in picture.controller_jobs:
        where = f"on {job.node}" if job.node else f"({job.reason})"
        yield Text(f"controller: job {job.id} {job.state.lower()} {where}", style="yellow")
    if not picture.controller_jobs:
        yield Text("no controller at work: launch the study again, it goes on", style="red")


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:,.1f}"


def _notes(picture: Picture) -> Iterator[tuple[str, str]]:
    """What else there is to say, and in which style."""
    survey, answer = picture.survey, picture.answer
    if survey.unread:
        yield f"reading: {count(survey.unread, 'trial')} not looked at yet", "yellow"
    if survey.problems:
        more = f" (and {len(survey.problems) - 1} more)" if len(survey.problems) > 1 else ""
        yield f"cannot be read{more}: {survey.problems[0]}", "red"
    if answer is None:
        return
    if answer.problem:
        since = f" (the queue is that of {roughly(survey.taken - answer.asked)} ago)" if answer.asked else ""
        yield f"Slurm does not answer{since}: {answer.problem}", "red"
    if picture.others:
        states = Counter(job.state.lower() for job in picture.others)
        yield "other jobs of the same user: " + ", ".join(f"{n} {state}" for state, n in states.most_common()), "dim"
