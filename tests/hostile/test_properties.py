"""Whatever is in a study file or a result: the reader gives something valid, or says in its own words why not."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmkd.checksum import CHECKSUM_BYTES, checksum_line
from mmkd.errors import UserError
from mmkd.result_file import Predictions, Result, ResultError, Status, read_result, read_summary, write_result
from mmkd.rundir import TrialDir
from mmkd.terminal import is_plain, one_line, printable
from sweeps.study_file import StudyFile, find_study, load_study, override, parse_override, study_names

quick = settings(
    derandomize=True, max_examples=60, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
lines = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(is_plain)
finite = st.floats(1e-6, 1.0, exclude_max=True)


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True)))
    inside = st.floats(low, high)
    return draw(
        st.fixed_dictionaries(
            {"low": st.just(low), "high": st.just(high)}, optional={"log": st.booleans(), "default": inside}
        )
    )


weights = st.one_of(finite, ranges())
spaces = st.fixed_dictionaries({}, optional=dict.fromkeys(("learning_rate", "alpha", "beta", "temperature"), weights))
rows = st.fixed_dictionaries(
    {"name": names, "method": st.sampled_from(["no_kd", "kd", "crd", "edam", "anything"])},
    optional={
        "label": lines,
        "group": lines,
        "level": lines,
        "pairing": lines,
        "space": spaces,
        "trials": st.integers(1, 10**6),
        "seeds": st.integers(1, 10**4 - 1),
        "sampler": st.sampled_from(["auto", "random", "tpe", "gp", "cmaes"]),
        "pruner": st.sampled_from(["none", "median", "halving"]),
        "training": st.dictionaries(names, st.integers() | finite | lines, max_size=2),
    },
)
studies = st.fixed_dictionaries(
    {"title": lines, "rows": st.lists(rows, min_size=1, max_size=4, unique_by=lambda row: row["name"])},
    optional={"primary": names, "defaults": st.fixed_dictionaries({}, optional={"space": spaces, "pairing": lines})},
)

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(studies)
def test_a_valid_study_comes_back_equal(raw: dict[str, Any]) -> None:
    study = StudyFile.model_validate(raw)
    assert StudyFile.model_validate(study.model_dump()) == study
    assert StudyFile.model_validate_json(study.model_dump_json()) == study
    for given_row, row in zip(raw["rows"], study.rows, strict=True):
        assert given_row.items() >= {"name": row.name, "method": row.method}.items()


def toml_of(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_of(str(key))} = {toml_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value).lower() if isinstance(value, (bool, float)) else str(value)


@quick
@given(studies)
def test_a_study_file_says_what_was_written_into_it(tmp_path: Path, raw: dict[str, Any]) -> None:
    path = tmp_path / "any.toml"
    path.write_text("".join(f"{key} = {toml_of(value)}\n" for key, value in raw.items()), encoding="utf-8")
    assert load_study(path) == StudyFile.model_validate(raw)


@quick
@given(
    st.sampled_from(study_names()), st.lists(st.tuples(st.integers(0), st.binary(max_size=3)), min_size=1, max_size=4)
)
def test_a_study_file_with_any_bytes_changed_is_valid_or_refused(
    tmp_path: Path, name: str, edits: list[tuple[int, bytes]]
) -> None:
    content = bytearray(find_study(name).read_bytes())
    for place, new in edits:
        content[place % len(content) : place % len(content) + max(len(new), 1)] = new
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    refused_or_valid(path, [])


KEYS = st.lists(
    st.sampled_from(["rows", "*", "crd", "title", "defaults", "space", "beta", "low", "control", "training", "0", ""]),
    min_size=1,
    max_size=4,
).map(".".join)


@quick
@given(KEYS, anything)
@example("rows", [1])
@example("rows.*.name", 3)
@example("rows", [{"name": "../x", "method": "kd"}])
def test_a_study_with_any_value_put_anywhere_is_valid_or_refused(key: str, value: Any) -> None:
    refused_or_valid(find_study("crd_attention"), [(key, value)])


@quick
@given(st.text(max_size=40))
def test_any_word_behind_set_is_read_or_refused(text: str) -> None:
    try:
        key, value = parse_override(text)
        override({"title": "x", "rows": [{"name": "crd"}, 3]}, key, value)
    except UserError:
        return


def refused_or_valid(path: Path, overrides: list[tuple[str, Any]]) -> None:
    try:
        study = load_study(path, overrides)
    except UserError:
        return
    assert study.rows
    assert all(is_plain(row.label or "x") for row in study.rows)
    spaces = [space for row in study.rows for space in row.space.model_dump(exclude_none=True).values()]
    assert all(math.isfinite(x) for space in spaces if isinstance(space, dict) for x in (space["low"], space["high"]))


numbers = st.floats(width=64)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=8).filter(
    lambda w: w != "."
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def outputs(draw: st.DrawFn) -> Predictions:
    samples, classes = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    logits = draw(arrays.arrays(np.float32, (samples, classes)))
    labels = draw(arrays.arrays(np.int64, (samples,)))
    ids = draw(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
                        min_size=samples, max_size=samples))  # fmt: skip
    scores = draw(st.none() | arrays.arrays(np.float32, (samples,)))
    return Predictions(logits, labels, ids, scores)


plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
results = st.builds(
    Result,
    status=st.sampled_from(Status),
    config=st.dictionaries(words, json_values, max_size=3),
    reason=plain_text,
    best_epoch=st.integers(-1, 10**6),
    epochs=st.integers(0, 10**6),
    seconds=numbers,
    parameters=st.integers(0, 2**62),
    device=plain_text,
    weights_sha256=st.just("ab" * 32),
    metrics=st.dictionaries(st.sampled_from(["valid", "test"]), st.dictionaries(words, numbers, max_size=3)),
    curves=st.dictionaries(words, st.lists(numbers, max_size=4), max_size=3),
    predictions=st.dictionaries(st.sampled_from(["valid", "test"]), outputs()),
)


def plain(result: Result) -> dict[str, Any]:
    """For comparison: arrays as bytes, NaN as text."""
    predictions = {
        split: (p.logits.tobytes(), p.labels.tobytes(), p.ids, None if p.scores is None else p.scores.tobytes())
        for split, p in sorted(result.predictions.items())
    }
    metrics = {split: dict(sorted(values.items())) for split, values in sorted(result.metrics.items())}
    facts = {
        **vars(result),
        "predictions": predictions,
        "metrics": metrics,
        "curves": dict(sorted(result.curves.items())),
    }
    return {name: repr(value) for name, value in facts.items()}


@quick
@given(results)
def test_a_result_comes_back_equal(tmp_path: Path, result: Result) -> None:
    place = TrialDir(tmp_path)
    write_result(place, result)
    assert plain(read_result(place.result)) == plain(result)
    summary = read_summary(place.result)
    assert (summary.status, summary.epochs, repr(summary.seconds)) == (
        result.status,
        result.epochs,
        repr(result.seconds),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A result's content without its checksum."""
    place = TrialDir(tmp_path_factory.mktemp("written"))
    outputs = Predictions(np.ones((2, 3), "f4"), np.array([0, 1]), ["a", "b"], np.ones(2, "f4"))
    facts: dict[str, Any] = {"metrics": {"valid": {"loss": 0.5}}, "curves": {"loss": [1.0, 0.5]}}
    write_result(place, Result(Status.COMPLETE, {"seed": 1}, predictions={"valid": outputs}, **facts))
    return place.result.read_bytes()[:-CHECKSUM_BYTES]


@quick
@given(st.integers(0, 10**6))
@example(0)
@example(1)
def test_a_result_that_is_cut_short_anywhere_is_refused(tmp_path: Path, written: bytes, length: int) -> None:
    path = tmp_path / "result.h5"
    stored = written + checksum_line(written)
    path.write_bytes(stored[: length % len(stored)])
    with pytest.raises(ResultError):
        read_result(path)


@quick
@given(st.integers(0, 10**7))
def test_a_result_with_any_bit_flipped_is_refused(tmp_path: Path, written: bytes, bit: int) -> None:
    path = tmp_path / "result.h5"
    content = bytearray(written + checksum_line(written))
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(ResultError):
        read_result(path)


@quick
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_what_is_changed_under_a_right_checksum_is_read_or_refused(
    tmp_path: Path, written: bytes, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path / "result.h5"
    content = bytearray(written)
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(bytes(content) + checksum_line(content))
    for read in (read_result, read_summary):
        try:
            found = read(path)
        except ResultError:
            continue
        assert isinstance(found, Result)
        assert found.status in Status


@quick
@given(st.text())
def test_what_is_printed_is_printable_and_only_control_characters_change(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert "\x1b" not in shown
    shown.encode("utf-8")
    line = one_line(text)
    assert not line or is_plain(line) or not line.strip()


def test_toml_of_is_toml() -> None:
    value = {"a": [1, 2.5, True, 'x\n"ä'], "b": {"c": []}}
    assert tomllib.loads(f"x = {toml_of(value)}")["x"] == value
