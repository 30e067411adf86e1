"""Draw the first lines: progress, time to go, costs and notes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from textwrap import wrap

from rich.text import Text

from mmkd.formatting import count, duration, short_path
from mmkd.result_file import Status
from mmkd.trial_state import State
from slurm.monitoring.overview import Overview
from slurm.monitoring.remaining import Eta
from slurm.monitoring.watching import Sign

BETWEEN = " · "


def heading(overview: Overview, width: int, note_lines: int) -> list[Text]:
    """The lines, none longer than `width`; notes take at most `note_lines` each."""
    lines = [_title(overview, width)]
    for parts in (_progress(overview), _forecast(overview), _costs(overview)):
        lines += _fill(parts, width)
    for text, style in _notes(overview):
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


def _title(overview: Overview, width: int) -> Text:
    names = [study.name for study in overview.survey.studies]
    name = names[0] if len(names) == 1 else f"{len(names)} studies" if names else "no study"
    clock = time.strftime("%a %H:%M:%S", time.localtime(overview.survey.taken))
    line = Text.assemble((name, "bold"), "  ")
    line.append(short_path(overview.survey.root, width - line.cell_len - len(clock) - 2), style="dim")
    line.truncate(width - len(clock) - 2, overflow="ellipsis")
    line.pad_right(width - len(clock) - line.cell_len)
    return line.append(clock, style="dim")


def _progress(overview: Overview) -> Iterator[Text]:
    failed = overview.count(State.FAILED)
    total = overview.left + overview.finished + failed
    share = f" ({100 * overview.finished // total} %)" if total else ""
    yield Text(f"{overview.finished:,} of {count(total, 'run')} done{share}")
    if overview.teachers_needed:
        yield Text(f"teachers {overview.teachers_trained}/{overview.teachers_needed}")
    yield Text(f"{overview.busy:,} running")
    for number, what, style in (
        (overview.count(State.PENDING), "pending", ""),
        (overview.count(State.RETRY_DUE), "to be retried", "yellow"),
        (overview.count(Sign.LOST), "lost", "red"),
        (overview.count(Status.DIVERGED), "diverged", ""),
        (overview.count(Status.PRUNED), "pruned", ""),
        (failed, "failed", "red"),
    ):
        if number:
            yield Text(f"{number:,} {what}", style=style)


def _forecast(overview: Overview) -> Iterator[Text]:
    eta = overview.eta
    if not isinstance(eta, Eta):
        yield Text(eta)
        return
    end = time.localtime(overview.survey.taken + eta.seconds)
    until = time.strftime("%H:%M" if eta.seconds < 43200 else "%a %d %b %H:%M", end)
    yield Text(f"about {duration(eta.seconds)} to go, until {until}")
    slots = f"{eta.slots:.1f}" if eta.slots < 10 else f"{eta.slots:.0f}"
    yield Text(f"{count(eta.runs, 'run')} of {duration(eta.mean)} (as {eta.learned:,} took) on {slots} slots")


def _costs(overview: Overview) -> Iterator[Text]:
    hours = overview.gpu_hours
    yield Text(f"{count(overview.busy, 'slot')} busy")
    spent = f"GPU-hours {_hours(hours.spent)}"
    if hours.limit is None and hours.spent:
        yield Text(spent)
    elif hours.limit is not None:
        left = max(hours.limit - hours.spent, 0.0)
        yield Text(f"{spent} of {hours.limit:g}, {_hours(left)} left", style="" if left else "red")
    if overview.workers:
        yield Text(f"workers: {overview.workers}")
    for holder in overview.controllers:
        yield Text(f"controller: {holder}, last heartbeat {duration(holder.age)} ago")
    if overview.controllers or not overview.left:
        return
    for job in overview.controller_jobs:
        where = f"on {job.node}" if job.node else f"({job.reason})"
        yield Text(f"controller: job {job.id} {job.state.lower()} {where}", style="yellow")
    if not overview.controller_jobs:
        yield Text("no controller at work: launch the study again to resume", style="red")


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:,.1f}"


def _notes(overview: Overview) -> Iterator[tuple[str, str]]:
    """Notes, each with its style."""
    survey, answer = overview.survey, overview.answer
    if survey.unread:
        yield f"reading: {count(survey.unread, 'trial')} not looked at yet", "yellow"
    if survey.problems:
        more = f" (and {len(survey.problems) - 1} more)" if len(survey.problems) > 1 else ""
        yield f"cannot be read{more}: {survey.problems[0]}", "red"
    if answer is None:
        return
    if answer.problem:
        since = f" (the queue is that of {duration(survey.taken - answer.asked)} ago)" if answer.asked else ""
        yield f"Slurm does not answer{since}: {answer.problem}", "red"
    if overview.others:
        states = Counter(job.state.lower() for job in overview.others)
        yield "other jobs of the same user: " + ", ".join(f"{n} {state}" for state, n in states.most_common()), "dim"
