"""`python -m mmkd.data import`: the command line of each importer."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmkd.command import positive_integer
from mmkd.data.importers.arrays import import_arrays
from mmkd.data.importers.importing import Options, Progress
from mmkd.data.importers.label_table import Scores
from mmkd.data.importers.meanings import EMOTIONS
from mmkd.data.importers.mmsa import MMSA, WIDTHS, import_mmsa
from mmkd.data.importers.mult import MULT, MULTIBENCH, import_mult, import_multibench
from mmkd.data.importers.uea import import_uea
from mmkd.data.importers.utd_mhad import STEPS, TRAIN_SUBJECTS, import_utd_mhad
from mmkd.data.padding import CHOICES

Make = Callable[[argparse.Namespace, Progress, Progress], object]
"""Makes a data file from parsed options; the others are called with each step, and with each finding."""

Importers = Any
"""What `add_subparsers` returns."""


def add_importers(importers: Importers) -> list[argparse.ArgumentParser]:
    """Add a parser for each importer, whose `make` is a `Make`; return them."""
    return [
        _utd_mhad(importers),
        _mult(importers),
        _mosei(importers),
        _mmsa(importers),
        _multibench(importers),
        _uea(importers),
        _arrays(importers),
    ]


def _utd_mhad(importers: Importers) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importers.add_parser(
        "utd-mhad", help="UTD-MHAD: skeleton, accelerometer, gyroscope; 27 actions"
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="ARCHIVE_OR_DIRECTORY",
        help="tar, zip or directory of .mat files, or a directory with Inertial.zip and Skeleton.zip",
    )
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument(
        "--steps",
        type=_steps,
        default=STEPS,
        metavar="S,A,G",
        help="resample skeleton, accelerometer and gyroscope to these numbers of steps (default: 40,96,96)",
    )
    lengths.add_argument(
        "--native",
        action="store_const",
        const=None,
        dest="steps",
        help="keep native lengths, with zeros in front, instead of resampling",
    )
    parser.add_argument("--raw", action="store_true", help="keep the camera's coordinates of the skeleton")
    parser.add_argument(
        "--valid-subject",
        type=int,
        default=7,
        choices=TRAIN_SUBJECTS,
        help="subject held out of train for validation (default: 7)",
    )

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_utd_mhad(
            options.source, options.out, steps=options.steps, raw=options.raw, valid_subject=options.valid_subject
        )

    parser.set_defaults(make=make)
    return parser


def _mult(importers: Importers) -> argparse.ArgumentParser:
    parser = _pickle(importers, "mult", "MulT's pickles of CMU-MOSEI, CMU-MOSI and IEMOCAP, aligned or not", MULT)
    parser.add_argument("--emotion", choices=EMOTIONS, help="for IEMOCAP: the emotion to recognise (yes or no)")

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_mult(
            options.source,
            options.out,
            options.dataset,
            emotion=options.emotion,
            options=_options(options, progress, report),
        )

    parser.set_defaults(make=make)
    return parser


def _mosei(importers: Importers) -> argparse.ArgumentParser:
    parser = _pickle(importers, "mosei", "the same as mult --dataset mosei", ())

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_mult(options.source, options.out, "mosei", options=_options(options, progress, report))

    parser.set_defaults(make=make)
    return parser


def _mmsa(importers: Importers) -> argparse.ArgumentParser:
    parser = _pickle(importers, "mmsa", "MMSA's pickles of CMU-MOSI, CMU-MOSEI and CH-SIMS (unaligned_50.pkl)", MMSA)
    parser.add_argument("--text", choices=sorted(WIDTHS), help="refuse a file that has other text features")

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_mmsa(
            options.source, options.out, options.dataset, text=options.text, options=_options(options, progress, report)
        )

    parser.set_defaults(make=make)
    return parser


def _multibench(importers: Importers) -> argparse.ArgumentParser:
    parser = _pickle(importers, "multibench", "MultiBench's mosi_raw.pkl, humor.pkl, sarcasm.pkl, ...", MULTIBENCH)

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_multibench(options.source, options.out, options.dataset, options=_options(options, progress, report))

    parser.set_defaults(make=make)
    return parser


def _uea(importers: Importers) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importers.add_parser("uea", help="a problem of the UEA archive (.ts files)")
    parser.add_argument(
        "source", type=Path, metavar="FOLDER_OR_TS", help="a folder with *_TRAIN.ts and *_TEST.ts, or one of them"
    )
    parser.add_argument(
        "--modalities",
        type=_modalities,
        required=True,
        metavar="NAME=0-2,NAME=3-5",
        help="the dimensions of each modality, from 0",
    )
    _add_seed(parser)
    _add_repairs(parser)

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_uea(
            options.source,
            options.out,
            options.modalities,
            seed=options.seed,
            options=_options(options, progress, report),
        )

    parser.set_defaults(make=make)
    return parser


def _arrays(importers: Importers) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importers.add_parser(
        "arrays", help="your own recordings: a folder for each modality, a file for each sample, and a table of labels"
    )
    parser.add_argument("source", type=Path, metavar="FOLDER", help="contains MODALITY/SAMPLE.npy, .npz or .csv")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.csv",
        help="table with columns id, label, and optionally split and group (default: FOLDER/labels.csv)",
    )
    parser.add_argument(
        "--scores",
        type=_scores,
        metavar="FIRST,LAST,CLASSES",
        help="labels are scores in this range, with this many evenly spaced classes; write --scores=-3,3,7",
    )
    _add_seed(parser)
    _add_repairs(parser)

    def make(options: argparse.Namespace, progress: Progress, report: Progress) -> None:
        import_arrays(
            options.source,
            options.out,
            labels=options.labels,
            scores=options.scores,
            seed=options.seed,
            options=_options(options, progress, report),
        )

    parser.set_defaults(make=make)
    return parser


def _pickle(importers: Importers, name: str, text: str, datasets: tuple[str, ...]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importers.add_parser(name, help=text)
    parser.add_argument("source", type=Path, metavar="PICKLE", help="the file to import; no code in it is run")
    if datasets:
        parser.add_argument("--dataset", choices=datasets, required=True, help="the data set in the file")
    _add_repairs(parser)
    return parser


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=int, default=0, help="seed for drawing the parts that the source lacks (default: 0)"
    )


def _add_repairs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--padding",
        choices=CHOICES,
        help="the side of the padding; none: every step is data (default: lengths and all-zero steps decide)",
    )
    parser.add_argument(
        "--replace-inf", type=_finite, metavar="VALUE", help="replace infinite features with VALUE (MulT's code: 0)"
    )
    parser.add_argument("--drop-nan", action="store_true", help="drop samples with NaN in a feature or label")


def _options(options: argparse.Namespace, progress: Progress, report: Progress) -> Options:
    return Options(options.padding, options.replace_inf, options.drop_nan, progress, report)


def _steps(text: str) -> dict[str, int]:
    counts = text.split(",")
    if len(counts) != len(STEPS):
        raise argparse.ArgumentTypeError(f"{text!r}: give three counts, for {', '.join(STEPS)}")
    return dict(zip(STEPS, map(positive_integer, counts), strict=True))


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 3e38:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _scores(text: str) -> Scores:
    try:
        first, last, classes = text.split(",")
        scores = Scores(_finite(first), _finite(last), positive_integer(classes))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give FIRST,LAST,CLASSES, such as --scores=1,5,5") from None
    if not scores.first < scores.last or not 2 <= scores.classes <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: LAST must be above FIRST, and CLASSES from 2 to 1000")
    return scores


def _modalities(text: str) -> dict[str, list[int]]:
    """`accelerometer=0-2,gyroscope=3-5`; several ranges of one name add up."""
    found: dict[str, list[int]] = {}
    owners: dict[int, str] = {}
    name = ""
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:([^=\s]+)\s*=\s*)?(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if match is None or not (match[1] or name):
            raise argparse.ArgumentTypeError(f"{part!r} in {text!r}: give NAME=FIRST-LAST, such as accelerometer=0-2")
        name = match[1] or name
        first, last = int(match[2]), int(match[3] or match[2])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} in {text!r}: the last dimension is before the first")
        for dimension in range(first, last + 1):
            if dimension in owners:
                raise argparse.ArgumentTypeError(
                    f"dimension {dimension} in {text!r} is in {owners[dimension]} and in {name}; keep one"
                )
            owners[dimension] = name
            found.setdefault(name, []).append(dimension)
    return found
