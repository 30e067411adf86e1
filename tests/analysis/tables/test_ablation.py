"""A table shows what was measured, hides no failure and says what must be said."""

from typing import Literal

import pytest
from roots import Lab, fail, finish, student_config, teacher_config
from scipy import stats

from analysis import load, table, to_text
from analysis.stats.error_bars import ERRORS
from analysis.tables.gap_cell import DASH
from analysis.tables.model import Table, TableRow
from mmkd.attempts import record_submission
from mmkd.config import identity
from mmkd.errors import UserError
from mmkd.failures import RULES, Failure
from mmkd.files import read_json, write_json
from mmkd.result_file import Status, read_result
from mmkd.rundir import TrialDir


def made(lab: Lab, **study: str) -> Table:
    return table(load(lab.path, cache=False), lab.study(**study) if study else "demo")


def rows(result: Table) -> dict[str, TableRow]:
    return {row.label: row for section in result.sections for row in section.rows}


def said(lines: tuple[str, ...]) -> str:
    return "\n".join(lines)


def test_means_spreads_and_counts(ablation: Lab) -> None:
    result = rows(made(ablation))
    assert list(result) == ["Teacher", "Student without KD", "CRD on attention maps"]
    cell = result["CRD on attention maps"].cells["accuracy"]
    assert (cell.value, cell.spread) == (pytest.approx(75.0), pytest.approx(1.0))  # SD of 74, 75, 76 with n - 1
    assert cell.text == "75.0 ± 1.0"  # one SD digit more by PDG; 1000 samples allow 0.1
    for metric in ("weighted_f1", "macro_f1", "majority_share"):
        stored = [
            read_result(ablation.row_of("crd").final_run(k, "abcdef01").result).metrics["test"] for k in (1, 2, 3)
        ]
        mean = 100 * sum(metrics[metric] for metrics in stored) / 3
        assert result["CRD on attention maps"].cells[metric].value == pytest.approx(mean)
    assert result["CRD on attention maps"].cells["seeds"].text == "3"
    assert result["CRD on attention maps"].cells["trials"].text == "2"


def test_costs(ablation: Lab) -> None:
    result = rows(made(ablation))
    assert made(ablation).columns[-1].label == "minutes"
    assert result["CRD on attention maps"].cells["cost"].value == pytest.approx((2 * 10 + 3 * 10) / 60)
    assert result["Teacher"].cells["cost"].value == pytest.approx(3 * 100 / 60)
    assert result["Teacher"].cells["parameters"].text == "1,802,345"
    assert result["Teacher"].cells["trials"].text == ""


def test_gpu_hours_are_shown_where_the_cluster_counted_all_of_them(ablation: Lab) -> None:
    for record in ablation.path.glob("teachers/*/attempts/1.job.json"):
        record_submission(TrialDir(record.parents[1]), 1, gpu_seconds=7200.0)
    assert made(ablation).columns[-1].label == "minutes"  # the teachers alone are not all
    for record in ablation.path.glob("rows/*/*/*/attempts/1.job.json"):
        record_submission(TrialDir(record.parents[1]), 1, gpu_seconds=3600.0)
    result = made(ablation)
    assert result.columns[-1].label == "GPU-hours"
    assert rows(result)["CRD on attention maps"].cells["cost"].value == pytest.approx(2 + 3)
    assert rows(result)["Teacher"].cells["cost"].text == "6.0"


def test_compression_is_the_teachers_parameters_over_the_students(ablation: Lab) -> None:
    result = rows(made(ablation))
    assert (
        result["CRD on attention maps"].cells["compression"].text == "2.67\N{MULTIPLICATION SIGN}"
    )  # 1,802,345 / 675,204
    assert result["Student without KD"].cells["compression"].text == ""


def test_differences_to_the_control_have_an_interval_and_a_corrected_p(lab: Lab) -> None:
    lab.row("none", [0.70, 0.71, 0.72])
    lab.row("good", [0.74, 0.75, 0.76])
    lab.row("weak", [0.71, 0.72, 0.73])
    result = rows(made(lab, control="none"))
    test = stats.ttest_ind([74, 75, 76], [70, 71, 72], equal_var=False)
    found = result["good"].cells["accuracy"].difference
    assert found is not None
    assert (found.value, found.p) == (pytest.approx(4.0), pytest.approx(test.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
    assert found.corrected == pytest.approx(2 * test.pvalue)  # the smaller of two
    assert result["good"].cells["difference"].text == "+4.0 [+1.7, +6.3]"
    assert result["good"].cells["p"].text == "0.016"
    assert result["none"].cells["difference"].text == ""


def test_best_second_and_those_tied_with_the_best(lab: Lab) -> None:
    teachers = [lab.teacher(seed, 0.9) for seed in (1, 2, 3)]
    lab.row("none", [0.500, 0.501, 0.502])
    lab.row("best", [0.74, 0.75, 0.77], teachers)
    lab.row("near", [0.73, 0.75, 0.76], teachers)
    lab.row("far", [0.600, 0.601, 0.602], teachers)
    cells = {label: row.cells["accuracy"] for label, row in rows(made(lab, control="none")).items()}
    assert {label: cell.rank for label, cell in cells.items()} == {
        "Teacher": None, "none": None, "best": 1, "near": 2, "far": None,
    }  # fmt: skip
    assert {label: cell.tied for label, cell in cells.items()} == {
        "Teacher": None, "none": False, "best": True, "near": True, "far": False,
    }  # fmt: skip


def test_equal_means_share_their_rank(lab: Lab) -> None:
    for name, scores in {"a": [0.7, 0.8], "b": [0.8, 0.7], "c": [0.6, 0.7]}.items():
        lab.row(name, scores)
    assert [row.cells["accuracy"].rank for row in made(lab, name="demo").rows] == [1, 1, 2]


def test_rows_that_are_not_finished_are_neither_ranked_nor_tested(ablation: Lab) -> None:
    ablation.row("early", [0.95, 0.96], label="early")
    ablation.rows[-1]["seeds"] = [1, 2, 3]
    result = made(ablation, control="none")
    assert rows(result)["early"].status == "final runs 2/3"
    assert rows(result)["early"].cells["accuracy"].rank is None
    assert rows(result)["early"].cells["difference"].text == ""
    assert rows(result)["CRD on attention maps"].cells["accuracy"].rank == 1
    assert "1 of 3 rows not compared" in result.legend


@pytest.mark.parametrize(("error", "half"), [("sd", 1.0), ("sem", 0.57735), ("ci", 2.48414)])
def test_the_error_behind_plus_minus_is_what_was_chosen_and_named(
    ablation: Lab, error: Literal["sd", "sem", "ci"], half: float
) -> None:
    result = table(load(ablation.path, cache=False), "demo", error=error)
    cell = rows(result)["CRD on attention maps"].cells["accuracy"]
    assert cell.error == pytest.approx(half, abs=1e-4)  # SD 1 of three: SD / sqrt(3), and t.975(2) = 4.30265 times that
    assert cell.spread == pytest.approx(1.0)
    assert f"mean ± {ERRORS[error]}" in said(result.notes)


def test_columns_can_be_chosen(ablation: Lab) -> None:
    result = table(load(ablation.path, cache=False), "demo", columns=["seeds", "accuracy"])
    assert [column.key for column in result.columns] == ["seeds", "accuracy"]
    with pytest.raises(UserError, match="unknown column 'acuracy'; did you mean accuracy"):
        table(load(ablation.path, cache=False), "demo", columns=["acuracy"])


def test_gap_recovered(ablation: Lab) -> None:
    result = rows(made(ablation))
    assert result["CRD on attention maps"].cells["gap"].value == pytest.approx(100 * 4 / 9)  # (75 - 71) / (80 - 71)
    assert result["CRD on attention maps"].cells["gap"].text.startswith("44 [")
    assert result["Student without KD"].cells["gap"].text == ""


def test_no_gap_where_the_teacher_is_not_better(lab: Lab) -> None:
    teachers = [lab.teacher(seed, 0.70) for seed in (1, 2)]
    lab.row("none", [0.70, 0.71])
    lab.row("crd", [0.74, 0.75], teachers)
    lab.row("smoothing", [0.71, 0.72])
    result = made(lab, control="none")
    assert rows(result)["crd"].cells["gap"].text == DASH
    assert [rows(result)[name].cells["gap"].footnote for name in ("crd", "smoothing")] == [1, 2]
    assert result.footnotes == (
        "no gap: the teacher is not better than the control",
        "no gap: this row has no teacher",
    )


def test_no_gap_without_control(ablation: Lab) -> None:
    ablation.study("free")
    result = table(load(ablation.path, cache=False), "free")
    assert result.footnotes == ("no gap: the study names no control",)


def test_groups_are_sections_with_their_teachers_first(lab: Lab) -> None:
    complete, branch = lab.teacher(1, 0.8), lab.teacher(1, 0.75, branch="language")
    lab.row("a", [0.7], [complete], group="complete")
    lab.row("b", [0.7], [complete], group="complete")
    lab.row("c", [0.7], [branch], group="branch")
    result = made(lab, name="demo")
    assert [(s.title, [row.label for row in s.rows]) for s in result.sections] == [
        ("complete", ["Teacher", "a", "b"]),
        ("branch", ["Teacher, language branch", "c"]),
    ]
    assert rows(result)["c"].cells["accuracy"].text == "70.0"
    assert "no finished row has two seeds" in said(result.notes)


def test_unfinished_and_failed_rows_are_shown(lab: Lab) -> None:
    lab.tune(lab.begin_row("tuning", trials=4), [0.5, 0.6])
    hopeless = lab.begin_row("hopeless", trials=1)
    finish(hopeless.trial(0), student_config(0, None), 0.0, status=Status.DIVERGED)
    final_runs = lab.row("final_runs", [0.7, 0.8])
    lab.rows[-1]["seeds"] = [1, 2, 3]
    broken = lab.begin_row("broken", seeds=[1])
    lab.tune(broken, [0.5, 0.5])
    fail(broken.final_run(1, "abcdef01"), student_config(1, None), "error", attempts=2)
    lab.choose(broken, {1: broken.final_run(1, "abcdef01")})
    lab.rows.append({**lab.rows[0], "name": "later", "label": "later", "directory": "later-00000000"})
    result = made(lab, name="demo")
    assert final_runs.winner.exists()
    assert {label: row.status for label, row in rows(result).items()} == {
        "tuning": "tuning 2/4",
        "hopeless": "failed: no tuning trial completed, of 1",
        "final_runs": "final runs 2/3",
        "broken": "failed: seed 1 failed (error)",
        "later": "not started",
    }
    assert rows(result)["tuning"].cells["trials"].text == "2/4"
    assert rows(result)["final_runs"].cells["accuracy"].value == pytest.approx(75)


@pytest.mark.parametrize("end", [failure for failure in Failure if RULES[failure].limit != 1])
def test_a_run_that_is_to_be_retried_has_not_ended(ablation: Lab, end: str) -> None:
    row = ablation.row_of("crd")
    row.final_run(3, "abcdef01").result.unlink()
    fail(row.final_run(3, "abcdef01"), student_config(3, None), end)
    assert rows(made(ablation))["CRD on attention maps"].status == "final runs 2/3"
    row.winner.unlink()
    row.trial(1).result.unlink()
    fail(row.trial(1), student_config(0, None), end)
    assert rows(made(ablation))["CRD on attention maps"].status == "tuning 1/2"


def test_a_study_that_has_not_begun_is_a_table_of_its_rows(lab: Lab) -> None:
    row = lab.begin_row("crd")
    lab.study(control="crd")
    row.row.unlink()
    row.path.rmdir()
    result = made(lab)
    assert rows(result)["crd"].status == "not started"
    assert "crd (not started)" in to_text(result)


def test_a_row_that_another_study_extends_shows_what_this_one_sampled(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    finish(row.trial(2), student_config(0, None), 0.5)
    assert rows(made(ablation))["CRD on attention maps"].cells["trials"].text == "2"
    row.winner.unlink()
    assert rows(made(ablation))["CRD on attention maps"].status == "tuning 2/2"


def test_no_gap_to_a_control_of_other_data(lab: Lab) -> None:
    lab.row("none", [0.7, 0.71], fingerprint="e" * 64)
    lab.row("crd", [0.74, 0.75], [lab.teacher(seed, 0.8) for seed in (1, 2)])
    assert made(lab, control="none").footnotes == ("no gap: the control was measured on other data",)


def test_a_failed_seed_is_counted_and_named(ablation: Lab) -> None:
    trial = ablation.root.rows()[0].final_run(3, "abcdef01")
    trial.result.unlink()
    finish(trial, student_config(3, teacher_config(3)), 0.0, status=Status.DIVERGED)
    result = made(ablation)
    row = rows(result)["CRD on attention maps"]
    assert row.cells["seeds"].text == "2/3"
    assert row.cells["accuracy"].value == pytest.approx(74.5)
    assert row.status == ""
    assert "CRD on attention maps: 2/3 seeds (seed 3 diverged)" in result.warnings


def test_a_missing_teacher_is_named(ablation: Lab) -> None:
    directory = ablation.root.teacher(identity(teacher_config(2))).path
    directory.rename(ablation.path / "elsewhere")
    result = made(ablation)
    assert rows(result)["Teacher"].cells["seeds"].text == "2/3"
    assert f"2/3 teachers (teachers/{directory.name} missing)" in said(result.warnings)


def test_a_truncated_result_is_a_missing_seed_with_a_warning(ablation: Lab) -> None:
    trial = ablation.root.rows()[0].final_run(3, "abcdef01")
    trial.result.write_bytes(trial.result.read_bytes()[:400])
    result = made(ablation)
    assert rows(result)["CRD on attention maps"].status == "final runs 2/3"
    assert "not counted: rows/crd-01234567/confirm/3-abcdef01" in said(result.warnings)


def test_superseded_runs_do_not_count(ablation: Lab) -> None:
    finish(ablation.root.rows()[0].final_run(1, "00000000"), student_config(1, None), 0.1, seconds=1e6)
    assert rows(made(ablation))["CRD on attention maps"].cells["accuracy"].value == pytest.approx(75.0)
    assert rows(made(ablation))["CRD on attention maps"].cells["cost"].value == pytest.approx(50 / 60)


def test_equal_rows_give_no_warning(ablation: Lab) -> None:
    assert made(ablation).warnings == ()


def test_rows_that_are_unlike_each_other_are_warned_of(lab: Lab) -> None:
    lab.row("none", [0.7, 0.7], trials=1)
    lab.row("crd", [0.7, 0.7, 0.7], trials=2, fingerprint="e" * 64)
    warnings = made(lab, control="none").warnings
    assert warnings == (
        "tuning budgets (trials) are unequal: 1: none; 2: crd",
        "seeds are unequal: 1, 2: none; 1, 2, 3: crd",
        f"data sets are unequal: {'f' * 12}: none; {'e' * 12}: crd",
    )


def test_the_budget_is_what_was_sampled_not_what_this_study_plans(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    ablation.choose(row, {seed: row.final_run(seed, "abcdef01") for seed in (1, 2, 3)}, trials=16)
    result = made(ablation)
    assert rows(result)["CRD on attention maps"].cells["trials"].text == "2/16"
    assert "tuning budgets (trials) are unequal: 2: Student without KD; 16: CRD" in said(result.warnings)


def test_notes_say_what_must_be_said(lab: Lab) -> None:
    lab.row("none", [0.70, 0.71, 0.72], source="synthetic (small, seed 0)")
    notes = said(made(lab, control="none").notes)
    for words in (
        "synthetic (small, seed 0)",
        "SYNTHETIC data",
        "test split: 1000 samples",
        "mean ± sample standard deviation (n - 1) over n final runs (seeds 1, 2, 3)",
        "validation loss, on the validation split only, 2 trials per row",
        "always predicting it has accuracy 38.0 %",
        "minimum detectable difference: 3.5 points of accuracy with 3 seeds per row",  # 3.507 SD, see test_power
        "pooled SD 1",
    ):
        assert words in notes


def test_real_data_are_not_called_synthetic(ablation: Lab) -> None:
    assert "synthetic" not in said(made(ablation).notes).lower()


def test_an_unknown_study_and_a_broken_one_are_the_users_error(ablation: Lab) -> None:
    with pytest.raises(UserError, match="did you mean demo"):
        table(load(ablation.path, cache=False), "dem")
    ablation.study("bad", control="nobody")
    with pytest.raises(UserError, match=r"bad\.json.*control = 'nobody' is no row"):
        table(load(ablation.path, cache=False), "bad")


def with_paper_figures(lab: Lab, **figures: float) -> Table:
    path = lab.root.study(lab.study(control="none"))
    study = read_json(path)
    assert study is not None
    study["rows"][1]["paper"] = figures
    write_json(path, study)
    for row in lab.root.rows():
        facts = read_json(row.row)
        assert facts is not None
        write_json(row.row, {**facts, "data": {**facts["data"], "modalities": ["video", "audio", "language"]}})
    return made(lab)


def test_the_papers_figures_stand_beside_ours_where_the_data_are_its_own(ablation: Lab) -> None:
    figures = {"accuracy": 44.031, "f1": 36.11, "teacher_accuracy": 49.779, "teacher_f1": 48.817}
    result = with_paper_figures(ablation, **figures)
    assert [column.key for column in result.columns][-2:] == ["paper_accuracy", "paper_f1"]
    assert rows(result)["CRD on attention maps"].cells["paper_accuracy"].value == 44.031
    assert rows(result)["Teacher"].cells["paper_f1"].value == 48.817
    assert rows(result)["Student without KD"].cells["paper_f1"].text == ""


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("UTD-MHAD", False),
        ("CMU-MOSI, MulT's pickle (unaligned)", False),
        ("CMU-MOSEI, MulT's pickle (aligned)", False),
        ("CMU-MOSEI, MMSA's pickle (unaligned, BERT)", False),
        ("CMU-MOSEI, MulT's pickle (unaligned)", True),
    ],
)
def test_the_papers_figures_are_not_set_beside_other_data(ablation: Lab, source: str, shown: bool) -> None:
    for row in ablation.root.rows():
        facts = read_json(row.row)
        assert facts is not None
        facts["data"]["source"] = source
        write_json(row.row, facts)
    result = with_paper_figures(ablation, accuracy=44.031, f1=36.11)
    assert ("paper_accuracy" in [column.key for column in result.columns]) is shown


def test_a_former_winner_that_was_measured_on_test_is_said(ablation: Lab) -> None:
    row = ablation.root.rows()[0]
    finish(row.final_run(1, "0123456789"), student_config(1, None), 0.9)
    result = made(ablation)
    assert "test was also read for the former winners (1 run, not shown)" in said(result.notes)
    assert not any("winner" in warning for warning in result.warnings)
    assert rows(made(ablation))["CRD on attention maps"].cells["accuracy"].value == pytest.approx(75.0)


def test_no_gap_is_claimed_where_nothing_beats_the_commonest_class(lab: Lab) -> None:
    teachers = [lab.teacher(seed, 0.30) for seed in (1, 2, 3)]
    lab.row("none", [0.20, 0.21, 0.22], label="control")
    lab.row("crd", [0.24, 0.25, 0.26], teachers, label="student")
    result = made(lab, control="none")
    assert rows(result)["student"].cells["gap"].text == DASH
    assert "no better than always predicting the most frequent class" in result.footnotes[0]
