"""A study's figures are laid out without overlaps, written by one command, and none is missed in silence."""

from pathlib import Path

import numpy as np
import pytest
from drawn import faults
from figure_root import FigureRoot, build
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import load
from analysis.__main__ import main
from analysis.figure_list import FIGURES
from analysis.figures.all_figures import _PLANNERS, plan
from analysis.figures.style import DOUBLE, SINGLE
from analysis.loading.runs import Runs
from mmkd.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> FigureRoot:
    return build(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def runs(root: FigureRoot) -> Runs:
    return load(root.path, cache=False)


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.importance.SHUFFLES", 5)


def test_several_rows_share_their_scales_and_name_their_panels(tmp_path: Path) -> None:
    root, rng = FigureRoot(tmp_path), np.random.default_rng(1)
    for number in range(8):
        root.row(f"row{number}", f"Row number {number}", rng, "A group")
    root.write(control="row0")
    (planned,) = plan(load(tmp_path, cache=False), "demo", "learning-loss")
    figure = planned.draw().figure
    assert figure.get_size_inches()[0] == DOUBLE
    assert len(figure.axes) == 7
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    titles = [ax.get_title() for ax in figure.axes]
    assert all(f"Row number {k}" in title and "A group" in title for k, title in enumerate(titles, 1))
    labelled = [bool(ax.get_xlabel()) for ax in figure.axes]
    assert labelled == [False] * 3 + [True] * 4
    FigureCanvasAgg(figure).draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :] if a and b)


def test_nothing_is_drawn_outside_of_the_figure(runs: Runs) -> None:
    for kind in FIGURES:
        for planned in plan(runs, "demo", kind):
            try:
                figure = planned.draw().figure
            except UserError:
                continue
            FigureCanvasAgg(figure).draw()
            box, size = figure.get_tightbbox(), figure.get_size_inches()
            assert box.x0 >= -0.01, planned.name
            assert box.y0 >= -0.01, planned.name
            assert box.x1 <= size[0] + 0.01, planned.name
            assert box.y1 <= size[1] + 0.01, planned.name
            assert size[0] >= SINGLE, planned.name


LONG = "Contrastive distillation on the gyroscope's and the skeleton's penultimate layers, of a complete teacher"
WIDE = "W" * 60
"""A word of the widest letters, without any place to break it."""


@pytest.mark.parametrize("rows", [1, 4])
def test_no_label_is_clipped_or_lies_over_another_however_long_it_is(tmp_path: Path, rows: int) -> None:
    root, rng = FigureRoot(tmp_path), np.random.default_rng(2)
    root.row("none", f"{LONG}, without distillation", rng)
    for number in range(rows):
        root.row(f"row{number}", f"{LONG} {WIDE if number % 2 else number}", rng, f"{LONG} {LONG}")
    root.write()
    runs = load(tmp_path, cache=False)
    names = [f"-row{rows - 1}", *(kind for kind in FIGURES if kind.startswith(("learning", "best", "forest", "table")))]
    drawn = [planned for kind in FIGURES for planned in plan(runs, "demo", kind) if planned.name.endswith(tuple(names))]
    found = {planned.name: faults(planned.draw().figure) for planned in drawn if not planned.name.startswith("att")}
    assert len(found) == 10
    assert not any(found.values()), found


def test_the_command_writes_what_can_be_drawn_and_says_what_cannot(
    root: FigureRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "directory"
    common = ["figures", "--root", str(root.path), "--out", str(out), "--format", "svg", "--no-cache"]
    assert main([*common, "--only", "forest", "importance", "learning-loss", "attention"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"wrote {out}/forest.svg" in said
    assert f"wrote {out}/importance-crd.svg" in said
    assert any(line.startswith("not drawn: importance-late: Not begun") for line in said)
    assert any(line.startswith("  without Not begun") for line in said)
    assert any(line.startswith("not drawn: attention-crd:") and "teacher" in line for line in said)
    written = {line.removeprefix("wrote ") for line in said if line.startswith("wrote")}
    assert written == {str(path) for path in out.iterdir()}


def test_the_command_fails_where_nothing_can_be_drawn(root: FigureRoot, tmp_path: Path) -> None:
    assert main(["figures", "--root", str(root.path), "--out", str(tmp_path), "--only", "attention", "--no-cache"]) == 1
    assert not list(tmp_path.iterdir())


def test_every_figure_of_the_list_is_planned() -> None:
    assert list(_PLANNERS) == list(FIGURES)
