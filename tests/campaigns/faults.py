"""Kill anything, lose nothing, count nothing twice: attacked, not argued. `python tests/campaigns/faults.py`.

Runs one study after the other on tiny data, each under a fresh root, and does its worst to each several times, at
random moments: kills, signals, full and read-only disks, torn, cut and changed files, doubled jobs and controllers, and
on Slurm dead daemons. Each study is launched again until it is done, and compared with one that nothing disturbed:
every trial reported exactly once, every number equal bit for bit, journal and directories agree, no process, job, lock
or temporary file left (fault_checks.py). Only faults that hit something count. Exit code 1 if anything was not so.

The seed decides which faults come in which order and after which times; what they hit depends on the machine's speed
too. FOLDER/campaign.jsonl has a line a study: stop the campaign at any time (Ctrl-C, or kill -9), and the same command
goes on. A study in which something was wrong is kept in its folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE.parent)]

from fault_checks import DOUBLED, LEFT, LOST, Finding, check  # noqa: E402
from fault_kinds import LOCAL, NEEDS_DISK, NEEDS_TEACHER, ON_SLURM  # noqa: E402
from fault_study import VARIANTS, AttackedStudy, remains, undisturbed  # noqa: E402
from survival import Stuck  # noqa: E402

from slurm.devcluster import DevCluster, Options, attach, up  # noqa: E402

FAULTS_A_STUDY = 8
"""Most that a study gets; it may be done before."""
EVERY_TAUGHT = 3
"""Every so many studies, one with teachers, each other time with replicates too: it takes twice as long or longer."""
LONGEST_WAIT = 4.0
"""Seconds after which the next fault comes, at most: long enough for a trial to start, train and end."""
HOPELESS = 10
"""After so many studies that no fault hit, more would not help."""


@dataclass(frozen=True)
class Hit:
    """A fault that hit something: `stage` is how far the study was, `what` what it hit, `after` the seconds waited."""

    kind: str
    stage: str
    what: str
    after: float


@dataclass(frozen=True)
class Outcome:
    """A study that was attacked, and what was wrong at its end: nothing, if all is well."""

    study: int
    seed: int
    where: str
    variant: str
    hits: tuple[Hit, ...]
    wrong: tuple[Finding, ...]
    launches: int
    seconds: float


def plan(seed: int, kinds: Sequence[str], faults: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
    """Studies without end: a number, and its faults' kinds with the seconds before each; all kinds equally often."""
    chance = random.Random(seed)
    deck = itertools.chain.from_iterable(chance.sample(kinds, len(kinds)) for _ in itertools.count())
    for number in itertools.count():
        yield number, [(next(deck), chance.uniform(0, LONGEST_WAIT)) for _ in range(faults)]


def attack(study: AttackedStudy, faults: Sequence[tuple[str, float]], chance: random.Random) -> Iterator[Hit]:
    """Inject the faults one after the other, as long as the study is not done; those that hit something.

    Raises:
        Stuck: a launch does not come to where it could be disturbed.
    """
    for kind, seconds in faults:
        if not study.get_going():
            break
        time.sleep(seconds)
        stage = study.stage()
        if what := ON_SLURM[kind](study, chance):
            study.forget_ended()
            yield Hit(kind, stage, what, round(seconds, 2))


class Campaign:
    """Studies under attack in `folder`, and the record of those that are done.

    Args:
        folder: for the record, the undisturbed roots, and the studies.
        seed: decides the faults.
        where: `local` or `slurm`.
        variants: which studies, in turn.
        console: where it says what it does.
    """

    def __init__(self, folder: Path, seed: int, where: str, variants: Sequence[str], console: Console) -> None:
        self.folder, self.seed, self.where, self.variants, self.console = folder, seed, where, variants, console
        self.cluster: DevCluster | None = None

    @property
    def record(self) -> Path:
        """A line a study."""
        return self.folder / "campaign.jsonl"

    def outcomes(self) -> list[Outcome]:
        """The studies so far, of this seed and place; a line that a kill cut short is none."""
        found = []
        for line in self.record.read_text().splitlines() if self.record.exists() else []:
            try:
                facts = json.loads(line)
            except ValueError:
                continue
            facts["hits"] = tuple(Hit(**hit) for hit in facts["hits"])
            facts["wrong"] = tuple(Finding(**finding) for finding in facts["wrong"])
            found.append(Outcome(**facts))
        return [o for o in found if (o.seed, o.where) == (self.seed, self.where)]

    def run(self, faults: int, kinds: Sequence[str]) -> None:
        """Attack studies until so many faults have hit, those of earlier calls counted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare_cluster()
        for left in remains(self.folder):
            left.cluster = self.cluster
            left.end_everything()
        done = {outcome.study for outcome in self.outcomes()}
        for number, planned in plan(self.seed, kinds, FAULTS_A_STUDY):
            missing = faults - sum(len(o.hits) for o in self.outcomes())
            if missing <= 0:
                return
            if number not in done:
                self._add(self._study(number, planned[:missing]))
            if number >= HOPELESS and not any(o.hits for o in self.outcomes()[-HOPELESS:]):
                raise SystemExit(f"{HOPELESS} studies in a row, and no fault hit: something is wrong with the campaign")

    def close(self) -> None:
        """Take the cluster down."""
        if self.cluster is not None:
            attach(self.cluster.directory).down()

    def _prepare_cluster(self) -> None:
        if self.where == "slurm":
            self.cluster = up(Options(nodes=2, gpus_per_node=2, cpus_per_node=4), self.folder / "slurm")
            os.environ.update(self.cluster.environment)

    def _study(self, number: int, faults: Sequence[tuple[str, float]]) -> Outcome:
        """One study, from its first launch to its checks."""
        variant = self.variants[number % len(self.variants)]
        expected = undisturbed(self.folder, variant)
        study = AttackedStudy(self.folder / f"study-{self.where}-{self.seed}-{number}", variant, self.cluster)
        study.with_workers = self.cluster is not None and number % 2 == 0
        study.prepare()
        if self.cluster is not None:
            self.cluster.restore()
        began = time.monotonic()
        hits: list[Hit] = []
        wrong: list[Finding] = []
        try:
            for hit in attack(study, faults, random.Random(f"{self.seed}/{number}")):
                hits.append(hit)
            study.finish()
        except Stuck as stuck:
            wrong.append(Finding(LEFT if study.is_done() else LOST, str(stuck)))
        except BaseException:  # the user has enough
            study.end_everything()
            study.remove()
            raise
        wrong += check(study.root, expected)
        seconds = round(time.monotonic() - began, 1)
        study.end_everything()
        if not wrong:
            study.remove()
        elif study.own_disk:
            study.keep()
        return Outcome(number, self.seed, self.where, variant, tuple(hits), tuple(wrong), study.launches, seconds)

    def _add(self, outcome: Outcome) -> None:
        torn = self.record.exists() and not self.record.read_bytes().endswith(b"\n")
        with self.record.open("a") as file:
            file.write(("\n" if torn else "") + json.dumps(asdict(outcome)) + "\n")
        hits = ", ".join(hit.kind for hit in outcome.hits)
        said = "; ".join(f"{f.kind}: {f.text}" for f in outcome.wrong[:5]) or "all is well"
        self.console.print(
            f"{time.strftime('%H:%M:%S')} study {outcome.study} ({outcome.variant}, {outcome.seconds:.0f} s, "
            f"{outcome.launches} launches): {hits or 'nothing hit'}: {said}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """The table: a fault counts as survived if nothing was wrong at its study's end; what is wrong counts for each."""
    table = Table("fault", "injected", "survived", "lost", "doubled", "other", "studies that failed", box=None)
    kinds = Counter(hit.kind for outcome in outcomes for hit in outcome.hits)
    for kind in [k for k in ON_SLURM if kinds[k]]:
        _line(table, kind, [(o, hit) for o in outcomes for hit in o.hits if hit.kind == kind])
    _line(table, "all", [(o, hit) for o in outcomes for hit in o.hits])
    console.print(table)
    idle = sum(o.seconds for o in outcomes)
    console.print(f"{len(outcomes)} studies, {sum(o.launches for o in outcomes)} launches, {idle / 60:.0f} min")


def _line(table: Table, name: str, hits: Sequence[tuple[Outcome, Hit]]) -> None:
    bad = {o.study: {f.kind for f in o.wrong} for o, _ in hits if o.wrong}
    counts = [
        len(hits),
        sum(not o.wrong for o, _ in hits),
        sum(LOST in kinds for kinds in bad.values()),
        sum(DOUBLED in kinds for kinds in bad.values()),
        sum(not kinds & {LOST, DOUBLED} for kinds in bad.values()),
    ]
    table.add_row(name, *map(str, counts), ", ".join(map(str, sorted(bad))))


def usable_kinds(where: str, only: Sequence[str], console: Console, folder: Path) -> list[str]:
    """The kinds to inject; says which are left out, and why."""
    kinds = list(only or (ON_SLURM if where == "slurm" else LOCAL))
    if NEEDS_DISK & set(kinds) and not _can_mount(folder):
        console.print(f"left out, for this user cannot mount a file system: {', '.join(sorted(NEEDS_DISK))}")
        kinds = [kind for kind in kinds if kind not in NEEDS_DISK]
    return kinds


def _can_mount(folder: Path) -> bool:
    """Whether a small file system can be mounted here, and a folder of it made immutable."""
    probe = AttackedStudy(folder / "study-probe", "plain")
    probe.prepare()
    try:
        return probe.own_disk and subprocess.run(["chattr", "+i", probe.disk], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
    finally:
        probe.remove()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=400, help="how many have to hit (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", choices=("local", "slurm"), default="local", help="on a Slurm of its own (root)")
    parser.add_argument(
        "--folder", type=Path, default=Path("faults"), help="for everything, and kept (default: faults)"
    )
    parser.add_argument("--only", action="append", choices=ON_SLURM, metavar="KIND", help="may be repeated")
    parser.add_argument(
        "--variant", choices=VARIANTS, help="this study alone (default: plain, with teachers, and with replicates)"
    )
    parser.add_argument("--list", action="store_true", help="the kinds, a line each, and stop")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if options.list:
        for name, fault in ON_SLURM.items():
            console.print(f"{name:<24} {fault.__doc__}", soft_wrap=True)
        return 0
    taught = NEEDS_TEACHER & set(options.only or ())
    plain = ("plain",) * (EVERY_TAUGHT - 1)
    mixed = ("taught", "replicated") if taught else (*plain, "taught", *plain, "replicated")
    variants = (options.variant,) if options.variant else mixed
    folder = options.folder.absolute()
    campaign = Campaign(folder, options.seed, options.where, variants, console)
    kinds = usable_kinds(options.where, options.only or (), console, folder)
    stopped = False
    try:
        campaign.run(options.faults, kinds)
    except KeyboardInterrupt:
        stopped = True
    finally:
        campaign.close()
        outcomes = campaign.outcomes()
        show(outcomes, console)
    if stopped:
        console.print("stopped; run the same command again to resume")
        return 130
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
