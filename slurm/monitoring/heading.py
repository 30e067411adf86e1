"""The first lines: how far it is, when it will be done, what it costs, and what the reader should know."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from slurm.monitoring.picture import Picture
from slurm.monitoring.reckoning import Eta
from slurm.monitoring.watching import BUSY, Condition
from slurm.monitoring.words import count, roughly


def heading(picture: Picture, width: int) -> list[Text]:
    """The lines, none longer than `width`."""
    lines = [_title(picture, width), Text(_progress(picture)), Text(_forecast(picture)), _costs(picture)]
    lines += list(_notes(picture))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _title(picture: Picture, width: int) -> Text:
    names = [study.name for study in picture.survey.studies]
    name = names[0] if len(names) == 1 else f"{len(names)} studies" if names else "no study"
    clock = time.strftime("%a %H:%M:%S", time.localtime(picture.survey.taken))
    room = width - len(name) - len(clock) - 4
    where = _short(picture.survey.root, room)
    line = Text.assemble((name, "bold"), ("  " + where, "dim"))
    line.truncate(width - len(clock) - 2, overflow="ellipsis")
    line.pad_right(width - len(clock) - line.cell_len)
    return line.append(clock, style="dim")


def _short(path: Path, room: int) -> str:
    """A path's last folders, as many as fit."""
    parts = path.parts
    shorter = ("…/" + "/".join(parts[i:]) for i in range(1, len(parts)))
    return next((text for text in (str(path), *shorter) if len(text) <= room), "")


def _progress(picture: Picture) -> str:
    failed = picture.count(Condition.FAILED)
    total = picture.left + picture.finished + failed
    share = f" ({100 * picture.finished // total} %)" if total else ""
    parts = [f"{picture.finished:,} of {count(total, 'run')} done{share}"]
    kinds = [
        (picture.count(*BUSY), "running"),
        (picture.count(Condition.WAITING), "waiting"),
        (picture.count(Condition.INTERRUPTED), "interrupted"),
        (picture.count(Condition.LOST), "lost"),
        (picture.count(Condition.DIVERGED), "diverged"),
        (picture.count(Condition.PRUNED), "pruned"),
        (failed, "failed"),
    ]
    parts += [f"{number:,} {what}" for number, what in kinds if number or what == "running"]
    if picture.teachers_needed:
        parts.append(f"teachers {picture.teachers_trained}/{picture.teachers_needed}")
    return ", ".join(parts)


def _forecast(picture: Picture) -> str:
    eta = picture.eta
    if not isinstance(eta, Eta):
        return eta
    until = time.strftime("%a %H:%M" if eta.seconds > 43200 else "%H:%M", time.localtime(time.time() + eta.seconds))
    basis = f"{count(eta.runs, 'run')} of {roughly(eta.mean)} (as {eta.learned:,} took) on {eta.slots:.1f} slots"
    return f"about {roughly(eta.seconds)} to go, until {until}: {basis}"


def _costs(picture: Picture) -> Text:
    hours = picture.gpu_hours
    line = Text(f"{count(picture.count(*BUSY), 'slot')} busy, GPU-hours {hours.spent:.1f}")
    if hours.limit is not None:
        left = hours.limit - hours.spent
        line.append(f" of {hours.limit:g} ({max(left, 0):.1f} left)", style="" if left > 0 else "red")
    if picture.controllers:
        said = (f"process {c.pid} on {c.host}, heard {roughly(c.heard)} ago" for c in picture.controllers)
        return line.append(f"; controller: {'; '.join(said)}")
    if picture.left:
        line.append("; no controller at work: launch the study again, and it goes on", style="red")
    return line


def _notes(picture: Picture) -> Iterator[Text]:
    survey, answer = picture.survey, picture.answer
    if survey.unread:
        yield Text(f"reading: {count(survey.unread, 'trial')} not looked at yet", style="yellow")
    if survey.problems:
        more = f" (and {len(survey.problems) - 1} more)" if len(survey.problems) > 1 else ""
        yield Text(f"cannot be read{more}: {survey.problems[0]}", style="red")
    if answer is None:
        return
    if answer.problem:
        yield Text(f"Slurm does not answer, the queue is as it was: {answer.problem}", style="red")
    if picture.others:
        states = Counter(job.state.lower() for job in picture.others)
        said = ", ".join(f"{number} {state}" for state, number in states.most_common())
        yield Text(f"other jobs of the same user: {said}", style="dim")
