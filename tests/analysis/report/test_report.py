"""The report is one file that needs nothing from elsewhere, hides nothing, and shows what users wrote as text alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from figure_root import FigureRoot
from pages import seen
from roots import Lab, fail, finish, student_config

from analysis import load, table
from analysis.__main__ import main
from analysis.loading.configurations import LEFT_OUT
from analysis.report import report
from analysis.report.configurations import group

SCRIPT = "<script>alert('x')</script> & \"<b>\""
SOME = ("learning-loss", "best-trials", "forest", "confusion")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> FigureRoot:
    """A study whose title and labels are markup, with a seed that diverged, a row not begun and a broken trial."""
    root, rng = FigureRoot(tmp_path_factory.mktemp("hostile")), np.random.default_rng(0)
    root.row("none", "Student without KD", rng)
    crd = root.row("crd", f"CRD {SCRIPT}", rng, f"Group {SCRIPT}", diverged=2)
    root.begin("late", "Not begun")
    root.write()
    record = root.path / "studies" / "demo.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"title": f"Title {SCRIPT}"}))
    (crd / "trials" / "4" / "result.h5").write_bytes(b"torn")
    (crd / "trials" / "<i>stray").mkdir()
    (crd / "journal.log").touch()
    return root


@pytest.fixture(scope="module")
def page(hostile: FigureRoot) -> str:
    return report(load(hostile.path, cache=False), kinds=SOME)


def test_it_needs_nothing_from_elsewhere_and_runs_nothing(page: str) -> None:
    found = seen(page)
    assert all(reference.startswith(("#", "data:image/")) for reference in found.references)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(found.tags)
    assert not [tag for tag in found.tags if "@" in tag]
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\((?!#)", page)


def test_every_link_leads_somewhere_and_no_id_is_there_twice(page: str) -> None:
    found = seen(page)
    assert len(found.ids) == len(set(found.ids))
    inside = [reference[1:] for reference in found.references if reference.startswith("#")]
    assert inside
    assert not set(inside) - set(found.ids)
    assert not set(re.findall(r"url\(#([^)]*)\)", page)) - set(found.ids)
    assert "s1-learning-loss-0-figure_1" in found.ids


def test_what_users_wrote_is_shown_letter_by_letter(page: str) -> None:
    text = seen(page).text
    assert f"Title {SCRIPT}" in text
    assert f"CRD {SCRIPT} [Group {SCRIPT}]" in text
    assert "trials/<i>stray" in text
    assert "<script" not in page
    assert "<i>" not in page


def test_equal_runs_give_equal_bytes(hostile: FigureRoot, page: str) -> None:
    assert report(load(hostile.path, cache=False), kinds=SOME) == page


def test_it_has_the_table_with_its_warnings_the_comparison_and_what_was_not_drawn(page: str) -> None:
    text = seen(page).text
    assert "Warning: 1 of 3 rows have no final score: Not begun" in text
    assert "not compared: Not begun: no score yet" in text
    assert "not drawn: confusion-late: Not begun: no score on test" in text
    assert page.count("<svg ") == 5  # two confusion matrices


def test_what_was_rejected_is_listed_with_its_reason(page: str) -> None:
    text = seen(page).text
    assert re.search(r"rows/crd-00000000/trials/4 \S", text)
    assert "rows/crd-00000000/trials/<i>stray not the name of a trial's directory" in text


def test_rows_with_a_journal_say_how_to_open_it(page: str) -> None:
    text = seen(page).text
    assert "optuna-dashboard rows/crd-00000000/journal.log" in text
    assert "rows/none-00000000/journal.log" not in text


def test_common_part_and_differences_make_up_every_configuration(ablation: Lab) -> None:
    runs = load(ablation.path, cache=False)
    row = ablation.row_of("crd").path
    mine = runs.trials[runs.trials["row"] == row.name]
    found = group(runs, f"rows/{row.name}", mine)
    assert len(found.runs) == len(mine) == 5
    assert found.common["network.width"] == "32"
    for run in found.runs:
        kind = "trials" if run.kind == "tuning" else run.kind
        stored = _flat(json.loads((row / kind / run.name / "config.json").read_text()))
        assert run.differs is not None
        assert {**found.common, **run.differs} == {k: v for k, v in stored.items() if k not in LEFT_OUT}
        assert "training.learning_rate" in run.differs
        assert "network.width" not in run.differs


def _flat(value: dict[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner if isinstance(inner, str) else json.dumps(inner)
    return flat


def test_failed_superseded_and_unfinished_trials_are_listed_too(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    fail(row.trial(2), student_config(0, None), "timeout")
    fail(row.trial(4), student_config(0, None), "error", attempts=2)
    finish(row.final_run(1, "ffffffffff"), student_config(1, None), 0.5)
    row.trial(3).path.mkdir()
    text = seen(report(load(ablation.path, cache=False), kinds=())).text
    assert "2 tuning retry_due (timeout): it broke 1 7" in text
    assert "4 tuning failed (error): it broke 2 14" in text
    assert "1-ffffffff superseded complete" in text
    assert re.search(r"3 tuning \w+ 0 no config\.json", text)
    assert "attempts 17 (complete: 14, error: 2, timeout: 1)" in text


def test_a_further_trial_costs_less_than_a_kilobyte(ablation: Lab) -> None:
    row = ablation.row_of("crd")
    before = len(report(load(ablation.path, cache=False), kinds=()))
    for number in range(2, 22):
        finish(row.trial(number), student_config(0, None, learning_rate=0.1 / number), 0.5)
    after = len(report(load(ablation.path, cache=False), kinds=()))
    assert 0 < after - before < 20 * 1000


def test_without_names_all_studies_are_there_and_rows_and_teachers_that_are_in_none(ablation: Lab) -> None:
    (ablation.path / "studies" / "broken.json").write_text("{}")
    ablation.study("second", control="none")
    ablation.row("alone", [0.6, 0.6, 0.6])
    ablation.teacher(9, 0.7)
    runs = load(ablation.path, cache=False)
    text = seen(report(runs, kinds=())).text
    assert "Study demo" in text
    assert "Study second" in text
    assert "alone-01234567 (in no study)" in text
    assert "studies/broken.json" in text
    assert text.count("4 trials") == 1
    narrow = seen(report(runs, ["demo"], kinds=())).text
    assert "Study second" not in narrow
    assert "alone-" not in narrow
    assert "4 trials" not in narrow


def test_cost_in_use_is_there_if_asked(ablation: Lab) -> None:
    runs = load(ablation.path, cache=False)
    assert "Inference cost" not in report(runs, kinds=())
    with_costs = report(runs, kinds=(), costs=lambda study: table(runs, study, columns=["parameters"]))
    assert "Inference cost" in with_costs


def test_the_command_writes_the_file_and_refuses_an_unknown_study(
    ablation: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    common = ["report", "--root", str(ablation.path), "--no-cache", "--out", str(out)]
    assert main([*common, "--figures", "forest"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out} (0.")
    assert out.read_text().count("<svg ") == 1
    assert main([*common, "--study", "dmo", "--figures", "--force"]) == 2
    assert "did you mean demo?" in capsys.readouterr().err


def test_a_root_without_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows").mkdir()
    assert main(["report", "--root", str(tmp_path), "--no-cache", "--out", str(tmp_path / "r.html")]) == 2
    assert main(["report", "--root", str(tmp_path), "--no-cache", "--out", str(tmp_path / "r.pdf")]) == 2
    assert "no study here" in capsys.readouterr().err
