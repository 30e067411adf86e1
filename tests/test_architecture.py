"""Imports form no cycle, and no module hides one of the standard library."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mmkd", "sweeps", "slurm", "analysis")


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(name: str, known: dict[str, Path]) -> set[str]:
    """The modules that a module imports anywhere: at its top, in a function, or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {module if module in known else node.module for module in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & known.keys()) - {name}


def test_imports_form_no_cycle() -> None:
    known = modules()
    order = TopologicalSorter({name: imports(name, known) for name in known})
    order.prepare()  # raises CycleError with the modules of a cycle


def test_no_module_hides_one_of_the_standard_library() -> None:
    """`python sweeps/launch.py` puts that directory first on sys.path."""
    own = {path.stem for package in ("sweeps", "slurm", "analysis") for path in (ROOT / package).glob("*.py")}
    assert not own & sys.stdlib_module_names
