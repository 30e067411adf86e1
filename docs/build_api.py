"""Build the API reference from docstrings: `python docs/build_api.py OUT`, then open OUT/index.html."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("PDOC_ALLOW_EXEC", "1")  # torch runs `uname` while it is imported

import pdoc

import analysis
from mmkd.data import dataset, hdf5_format

MODULES = ("mmkd", "analysis", "analysis.figures", "analysis.loading.runs")
"""Packages and modules with their public submodules; pdoc lists no others of a package with `__all__`."""


def main() -> None:
    """Build the pages."""
    parser = argparse.ArgumentParser(description="Build the API reference from docstrings.")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of the HTML pages")
    out = parser.parse_args().out
    for name in analysis.__all__:
        setattr(analysis, name, getattr(analysis, name))  # imported lazily, and pdoc reads the module's dictionary
    vars(hdf5_format)["LabelKind"] = dataset.LabelKind  # pdoc evaluates inherited annotations in the subclass's module
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=out)


if __name__ == "__main__":
    main()
