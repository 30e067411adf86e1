"""`python -m mmkd.data`: make data files and inspect them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmkd.command import Parser, add_force, positive_integer, run_command
from mmkd.data.hdf5_format import check_dataset, open_dataset, read_info
from mmkd.data.importers.mosei import import_mosei
from mmkd.data.importers.utd_mhad import STEPS, TRAIN_SUBJECTS, import_utd_mhad
from mmkd.data.summary import find_oddities, render
from mmkd.data.synthetic import SIZES, make_synthetic
from mmkd.files import check_output
from mmkd.steps import show_steps

EXAMPLES = """\
examples:
  %(prog)s synthetic synthetic.h5                  synthetic data to try mmkd with, in a second
  %(prog)s inspect synthetic.h5                    the content of a file, and anything odd about it
  %(prog)s import utd-mhad UTD-MHAD/ utd_mhad.h5   a directory, tar or zip of UTD-MHAD's .mat files
  %(prog)s import mosei mosei_senti_data_noalign.pkl mosei.h5

Your own arrays take ten lines of Python: see docs/adding-data.md or help(mmkd.data.write_dataset).
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mmkd.data") -> int:
    """The command."""
    return run_command(_parser(prog), lambda options: options.run(options), arguments)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog,
        description="Make data files in mmkd's HDF5 layout, and inspect them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    importers = commands.add_parser("import", help="convert a known data set to a data file").add_subparsers(
        dest="importer", required=True, metavar="DATASET"
    )
    utd = importers.add_parser("utd-mhad", help="UTD-MHAD: skeleton, accelerometer, gyroscope; 27 actions")
    utd.add_argument("source", type=Path, metavar="ARCHIVE_OR_DIRECTORY", help="tar, zip or directory of .mat files")
    lengths = utd.add_mutually_exclusive_group()
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
    utd.add_argument("--raw", action="store_true", help="keep the camera's coordinates of the skeleton")
    utd.add_argument(
        "--valid-subject",
        type=int,
        default=7,
        choices=TRAIN_SUBJECTS,
        help="subject held out of train for validation (default: 7)",
    )
    mosei = importers.add_parser("mosei", help="CMU-MOSEI: MulT's pickle, read without running any code in it")
    mosei.add_argument("source", type=Path, metavar="PICKLE", help="mosei_senti_data_noalign.pkl")
    synthetic = commands.add_parser("synthetic", help="generate a synthetic data set")
    synthetic.add_argument(
        "--size",
        choices=sorted(SIZES),
        default="small",
        help="small: learnt in seconds (default); mosei: MOSEI's shapes, for benchmarks",
    )
    synthetic.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    inspect = commands.add_parser("inspect", help="check a file and show its content")
    inspect.add_argument("file", type=Path, metavar="FILE.h5", help="a data file")
    inspect.set_defaults(run=_inspect)
    for maker in (utd, mosei, synthetic):  # last, so that OUT.h5 comes after the source
        maker.add_argument("out", type=Path, metavar="OUT.h5", help="the file to write (atomically)")
        add_force(maker)
        maker.set_defaults(run=_make)
    return parser


def _steps(text: str) -> dict[str, int]:
    counts = text.split(",")
    if len(counts) != len(STEPS):
        raise argparse.ArgumentTypeError(f"{text!r}: give three counts, for {', '.join(STEPS)}")
    return dict(zip(STEPS, map(positive_integer, counts), strict=True))


def _make(options: argparse.Namespace) -> int:
    check_output(options.out, str(options.out), (".h5", ".hdf5"), force=options.force)
    with show_steps() as tell:
        tell(f"making {options.out}")
        if options.command == "synthetic":
            make_synthetic(options.out, options.size, options.seed)
        elif options.importer == "mosei":
            import_mosei(options.source, options.out)
        else:
            import_utd_mhad(
                options.source, options.out, steps=options.steps, raw=options.raw, valid_subject=options.valid_subject
            )
    info = read_info(options.out)
    sizes = " / ".join(str(size) for size in info.sizes.values())
    print(f"wrote {options.out}: {sizes} samples (train / valid / test), fingerprint {info.fingerprint[:12]}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    check_dataset(options.file)
    with open_dataset(options.file) as (info, splits):
        oddities = find_oddities(info, splits)
        account = render(info, splits, oddities)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(account)
    return 0


if __name__ == "__main__":
    sys.exit(main())
