"""`python -m mmkd.data`: make data files and inspect them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmkd.command import Parser, add_force, run_command
from mmkd.data.hdf5_format import check_dataset, open_dataset, read_info
from mmkd.data.import_command import add_importers
from mmkd.data.summary import find_oddities, render
from mmkd.data.synthetic import SIZES, make_synthetic
from mmkd.files import check_output
from mmkd.steps import show_steps
from mmkd.terminal import one_line

EXAMPLES = """\
examples:
  %(prog)s synthetic synthetic.h5                  synthetic data to try mmkd with, in a second
  %(prog)s inspect synthetic.h5                    the content of a file, and anything odd about it
  %(prog)s import utd-mhad UTD-MHAD/ utd_mhad.h5   a directory, tar or zip of UTD-MHAD's .mat files
  %(prog)s import mult mosei_senti_data_noalign.pkl mosei.h5 --dataset mosei
  %(prog)s import mmsa unaligned_50.pkl sims.h5 --dataset sims
  %(prog)s import arrays recordings/ mine.h5       your own: MODALITY/SAMPLE.npy and labels.csv

docs/adding-data.md has all importers. Arrays in Python take ten lines, see help(mmkd.data.write_dataset).
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
    importers = commands.add_parser("import", help="convert data to a data file").add_subparsers(
        dest="importer", required=True, metavar="IMPORTER"
    )
    makers = add_importers(importers)
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
    synthetic.set_defaults(make=lambda options, *_: make_synthetic(options.out, options.size, options.seed))
    for maker in (*makers, synthetic):  # last, so that OUT.h5 comes after the source
        maker.add_argument("out", type=Path, metavar="OUT.h5", help="the file to write (atomically)")
        add_force(maker)
        maker.set_defaults(run=_make)
    return parser


def _make(options: argparse.Namespace) -> int:
    check_output(options.out, str(options.out), (".h5", ".hdf5"), force=options.force)
    found: list[str] = []
    with show_steps() as tell:
        tell(f"making {options.out}")
        options.make(options, tell, found.append)
    for line in found:
        print(one_line(line))
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
