"""Splits that are drawn by group: what they promise for any groups, classes and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import FACTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmkd.config import DrawnSplit, SplitSettings
from mmkd.data import SPLITS, DatasetInfo, Split, choose_split, divide, read_info, read_split, write_dataset
from mmkd.data.reading import read_statistics
from mmkd.data.splits import missing_classes, shared_groups
from mmkd.errors import UserError
from mmkd.records import SplitRecord

Sample = tuple[str, int]
"""Group and class."""


def write(path: Path, samples: dict[str, list[Sample]], order: np.random.Generator | None = None) -> DatasetInfo:
    """A file with these samples in its parts. With `order`, a sample may be in any row of any part."""
    everything = [(f"{part}-{n}", part, *sample) for part in SPLITS for n, sample in enumerate(samples[part])]
    if order is not None:
        homes = order.permutation([part for _, part, _, _ in everything])
        rows = order.permutation(len(everything))
        everything = [(everything[row][0], home, *everything[row][2:]) for row, home in zip(rows, homes, strict=True)]
    splits = {}
    for name in SPLITS:
        ids, labels, groups = zip(*[(i, label, g) for i, part, g, label in everything if part == name], strict=True)
        # The values tell the sample: its part and number.
        values = [[SPLITS.index(part) + 1.0, int(number) + 1.0] for part, number in (i.split("-") for i in ids)]
        array = np.array(values, np.float32)[:, None, :].repeat(2, axis=1)
        splits[name] = Split(arrays={"video": array}, labels=np.array(labels), ids=list(ids), groups=list(groups))
    write_dataset(path, splits, **FACTS)  # type: ignore[arg-type]
    return read_info(path)


def even(groups: dict[str, list[str]], samples: int = 6) -> dict[str, list[Sample]]:
    """Parts of these groups, each with as many samples, of all three classes in turn."""
    return {part: [(name, n % 3) for name in names for n in range(samples)] for part, names in groups.items()}


def drawn(info: DatasetInfo, replicate: int = 0, **chosen: Any) -> DatasetInfo:
    return divide(info, choose_split(info, SplitSettings(**chosen), replicate))


def parts(info: DatasetInfo) -> dict[str, list[str]]:
    """Part -> its groups."""
    return {part: list(groups) for part, groups in info.group_counts.items()}


def ids(info: DatasetInfo) -> dict[str, list[str]]:
    assert info.split is not None
    return {
        part: sorted(i for members in groups.values() for i in members) for part, groups in info.split.parts.items()
    }


EIGHT = even({"train": ["s1", "s3", "s5"], "valid": ["s7"], "test": ["s2", "s4", "s6", "s8"]})


@pytest.fixture
def eight(tmp_path: Path) -> DatasetInfo:
    """Eight groups, as UTD-MHAD has them."""
    return write(tmp_path / "eight.h5", EIGHT)


# --- properties


@st.composite
def files(draw: Callable[..., Any]) -> dict[str, list[Sample]]:
    """Up to 16 groups of 1 to 9 samples with any classes, spread over the parts in any way."""
    names = draw(st.lists(st.text("abü/ \"'", min_size=1, max_size=3), min_size=3, max_size=16, unique=True))
    sizes = draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names)))
    owners = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    labels = draw(st.lists(st.integers(0, 2), min_size=len(owners), max_size=len(owners)))
    samples = draw(st.permutations(list(zip(owners, labels, strict=True))))
    first = draw(st.integers(1, len(samples) - 2))
    second = draw(st.integers(first + 1, len(samples) - 1))
    return {"train": samples[:first], "valid": samples[first:second], "test": samples[second:]}


chosen = st.fixed_dictionaries(
    {"scheme": st.just("group-folds"), "seed": st.integers(0, 2**31 - 1)},
    optional={"folds": st.integers(2, 16), "valid_groups": st.integers(1, 4)},
)


@settings(max_examples=30, deadline=None)
@given(samples=files(), how=chosen, partition=st.integers(0, 9))
def test_folds_test_each_sample_once_and_keep_each_group_in_one_part(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, list[Sample]], how: dict[str, Any], partition: int
) -> None:
    info = write(tmp_path_factory.mktemp("any") / "any.h5", samples)
    groups = {group for part in samples.values() for group, _ in part}
    folds = how.get("folds", len(groups) if len(groups) <= 12 else 5)
    # With equal numbers of groups per fold; one may have more where others have larger groups.
    fits = folds <= len(groups) and len(groups) - -(-len(groups) // folds) > how.get("valid_groups", 1)
    try:
        replicates = [drawn(info, partition * folds + fold, **how) for fold in range(folds)]
    except UserError:
        assert not fits or folds < len(groups)
        assume(False)
    assert fits
    tested = Counter(sample for one in replicates for sample in ids(one)["test"])
    assert tested == Counter({f"{part}-{n}": 1 for part in SPLITS for n in range(len(samples[part]))})
    for one in replicates:
        assert shared_groups(one) == {}
        assert set().union(*parts(one).values()) == groups
        assert sum(map(len, ids(one).values())) == len(tested)
        assert min(one.sizes.values()) > 0
        if "valid_groups" in how:
            assert len(parts(one)["valid"]) == how["valid_groups"]


@settings(max_examples=15, deadline=None)
@given(samples=files(), how=chosen, replicate=st.integers(0, 40), order=st.integers(0, 2**32 - 1))
def test_a_split_does_not_depend_on_the_order_or_the_parts_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    samples: dict[str, list[Sample]],
    how: dict[str, Any],
    replicate: int,
    order: int,
) -> None:
    folder = tmp_path_factory.mktemp("order")
    first = write(folder / "a.h5", samples)
    other = write(folder / "b.h5", samples, np.random.default_rng(order))
    try:
        one = drawn(first, replicate, **how)
    except UserError:
        assume(False)
    same = drawn(other, replicate, **how)
    assert same.split == one.split
    assert (same.sizes, same.class_counts, same.group_counts) == (one.sizes, one.class_counts, one.group_counts)
    for part in SPLITS:
        mine, theirs = (read_split(info, part, standardise=False) for info in (one, same))
        assert mine.ids == theirs.ids == ids(one)[part]
        assert mine.groups == theirs.groups
        np.testing.assert_array_equal(mine.arrays["video"], theirs.arrays["video"])
        np.testing.assert_array_equal(mine.labels, theirs.labels)


@settings(max_examples=20, deadline=None)
@given(samples=files(), seed=st.integers(0, 99), replicate=st.integers(0, 40))
def test_resampled_validation_keeps_test_and_divides_the_other_groups(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, list[Sample]], seed: int, replicate: int
) -> None:
    tested = {group for group, _ in samples["test"]}
    others = [sample for part in ("train", "valid") for sample in samples[part] if sample[0] not in tested]
    assume(len({group for group, _ in others}) >= 2)
    info = write(
        tmp_path_factory.mktemp("any") / "any.h5", {"train": others[:1], "valid": others[1:], "test": samples["test"]}
    )
    one = drawn(info, replicate, scheme="resample-valid", seed=seed)
    assert ids(one)["test"] == sorted(read_split(info, "test").ids)
    assert set(parts(one)["train"]) | set(parts(one)["valid"]) == {group for group, _ in others}
    assert shared_groups(one) == {}
    assert min(one.sizes.values()) > 0


# --- what is drawn


def test_the_digest_stays_what_it_was(eight: DatasetInfo) -> None:
    """Rows and teachers on disk are found by it: it must be the same on every machine."""
    choice = choose_split(eight, SplitSettings(scheme="group-folds", seed=3), 9)
    assert choice is not None
    assert (choice.replicate, choice.seed, choice.folds, choice.valid_groups) == (9, 3, None, None)
    drawn_parts = {"train": ["s1", "s3", "s4", "s5", "s7", "s8"], "valid": ["s6"], "test": ["s2"]}
    assert parts(divide(eight, choice)) == drawn_parts
    assert choice.digest == "26d245a90fba01a364b610dfd33fe96a0a885263ae3ca60257355bac7e56391f"


def test_eight_groups_are_tested_one_by_one_with_another_one_for_validation(eight: DatasetInfo) -> None:
    replicates = [drawn(eight, r, scheme="group-folds") for r in range(8)]
    assert sorted(group for one in replicates for group in parts(one)["test"]) == [f"s{n}" for n in range(1, 9)]
    assert all(one.sizes == {"train": 36, "valid": 6, "test": 6} for one in replicates)
    assert all(one.class_counts == {"train": (12,) * 3, "valid": (2,) * 3, "test": (2,) * 3} for one in replicates)


@pytest.mark.parametrize("size", [1, 2])
def test_with_one_group_per_fold_no_two_partitions_choose_the_same_validation_groups(size: int, tmp_path: Path) -> None:
    info = write(tmp_path / "seven.h5", even({"train": list("abcde"), "valid": ["f"], "test": ["g"]}))
    number = comb(6, size)
    seen = Counter(
        (tuple(parts(one)["test"]), tuple(parts(one)["valid"]))
        for r in range(7 * number)
        for one in [drawn(info, r, scheme="group-folds", valid_groups=size)]
    )
    assert len(seen) == 7 * number


def test_more_than_twelve_groups_have_five_folds_of_about_equal_size_and_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 80, 40)
    owners = [(f"video {n}", int(c)) for n, size in enumerate(sizes) for c in rng.choice(3, size, p=[0.6, 0.3, 0.1])]
    info = write(tmp_path / "many.h5", {"train": owners[200:], "valid": owners[:100], "test": owners[100:200]})
    total = np.sum([info.class_counts[part] for part in SPLITS], axis=0)
    for partition in range(3):
        replicates = [drawn(info, 5 * partition + fold, scheme="group-folds") for fold in range(5)]
        counts = np.array([one.class_counts["test"] for one in replicates])
        assert counts.sum(axis=0).tolist() == total.tolist()
        assert (abs(counts.sum(axis=1) / (total.sum() / 5) - 1) < 0.1).all()
        assert (abs(counts / (total / 5) - 1) < 0.3).all()
        shares = [one.sizes["valid"] / (one.sizes["valid"] + one.sizes["train"]) for one in replicates]
        assert 0.1 < np.mean(shares) < 0.25
    assert len({tuple(parts(drawn(info, r, scheme="group-folds"))["test"]) for r in range(15)}) == 15


def test_another_seed_draws_another_partition(tmp_path: Path) -> None:
    names = [f"g{n}" for n in range(20)]
    info = write(tmp_path / "twenty.h5", even({"train": names[:10], "valid": names[10:15], "test": names[15:]}))
    tests = {tuple(parts(drawn(info, seed=seed, scheme="group-folds"))["test"]) for seed in range(10)}
    assert len(tests) > 8


def test_replicates_of_resampled_validation_choose_other_groups(eight: DatasetInfo) -> None:
    valid = [parts(drawn(eight, r, scheme="resample-valid"))["valid"] for r in range(4)]
    assert sorted(valid) == [["s1"], ["s3"], ["s5"], ["s7"]]
    assert parts(drawn(eight, 4, scheme="resample-valid"))["valid"] == valid[0]  # there are no others


def test_the_scheme_file_draws_nothing(eight: DatasetInfo) -> None:
    assert choose_split(eight, SplitSettings(), 3) is None
    assert divide(eight, None) == eight
    assert parts(eight) == {"train": ["s1", "s3", "s5"], "valid": ["s7"], "test": ["s2", "s4", "s6", "s8"]}


def test_the_files_own_parts_may_share_groups_which_is_reported(tmp_path: Path) -> None:
    info = write(tmp_path / "shared.h5", even({"train": ["a", "b", "c"], "valid": ["b"], "test": ["a", "b"]}))
    assert shared_groups(info) == {"a": ["train", "test"], "b": ["train", "valid", "test"]}


def test_missing_classes_are_named(tmp_path: Path) -> None:
    samples = even({"train": ["a", "b"], "valid": ["c"], "test": ["d"]})
    samples["valid"] = [("c", 0)] * 6
    info = write(tmp_path / "missing.h5", samples)
    found = [missing_classes(drawn(info, r, scheme="group-folds")) for r in range(4)]
    for r, missing in enumerate(found):
        one = drawn(info, r, scheme="group-folds")
        (home,) = [part for part, groups in parts(one).items() if "c" in groups]
        assert missing == ({home: ["yes", "maybe"]} if home != "train" else {})
    assert sum(map(bool, found)) >= 1


# --- reading


def test_train_of_the_drawn_split_alone_decides_standardisation(eight: DatasetInfo) -> None:
    one = drawn(eight, 2, scheme="group-folds")
    raw = {part: read_split(one, part, standardise=False) for part in SPLITS}
    mean, std = raw["train"].arrays["video"].mean(axis=(0, 1)), raw["train"].arrays["video"].std(axis=(0, 1))
    assert not np.allclose(mean, read_statistics(eight)["video"][0])
    np.testing.assert_allclose(read_statistics(one)["video"], (mean, std), rtol=1e-5)
    for part in SPLITS:
        read = read_split(one, part)
        assert read.ids == ids(one)[part]
        np.testing.assert_allclose(read.arrays["video"], (raw[part].arrays["video"] - mean) / std, atol=1e-5)


def test_samples_are_read_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    """Arrays, padding, labels, scores and groups of a drawn split are those of the file's samples."""
    rng, splits = np.random.default_rng(0), {}
    for n, name in enumerate(SPLITS):
        video = rng.normal(size=(9, 6, 2)).astype(np.float16)
        lengths = rng.integers(1, 7, 9)
        video[np.arange(6) < 6 - lengths[:, None]] = 0.0
        labels = rng.integers(0, 3, 9)
        splits[name] = Split(
            arrays={"video": video, "audio": rng.normal(size=(9, 3, 1)).astype("float32")},
            labels=labels,
            lengths={"video": lengths},
            scores=labels + 0.25,
            groups=[f"{n}{i // 3}" for i in range(9)],
        )
    write_dataset(tmp_path / "s.h5", splits, **FACTS, label_kind="score", score_range=(0, 2))  # type: ignore[arg-type]
    info = read_info(tmp_path / "s.h5")
    whole: dict[str, dict[str, Any]] = {}
    for name in SPLITS:
        own = read_split(info, name, standardise=False)
        assert own.scores is not None
        for n, sample in enumerate(own.ids):
            facts = {"labels": own.labels[n], "scores": own.scores[n], "groups": own.groups[n]}
            arrays = {f"arrays {m}": a[n].tolist() for m, a in own.arrays.items()}
            whole[sample] = facts | arrays | {f"lengths {m}": x[n] for m, x in own.lengths.items()}
    one = drawn(info, 1, scheme="group-folds")
    for name in SPLITS:
        read = read_split(one, name, standardise=False)
        assert read.scores is not None
        for n, sample in enumerate(read.ids):
            expected = whole.pop(sample)
            assert {key: expected[key] for key in ("labels", "scores", "groups")} == {
                "labels": read.labels[n],
                "scores": read.scores[n],
                "groups": read.groups[n],
            }
            assert all(read.arrays[m][n].tolist() == expected[f"arrays {m}"] for m in info.modalities)
            assert all(read.lengths[m][n] == expected[f"lengths {m}"] for m in info.modalities)
        padding = np.arange(6) < 6 - read.lengths["video"][:, None]
        assert not read_split(one, name).arrays["video"][padding].any()
    assert whole == {}


# --- refusals


def test_a_changed_sample_changes_the_data_and_a_changed_group_the_split(eight: DatasetInfo, tmp_path: Path) -> None:
    choice = choose_split(eight, SplitSettings(scheme="group-folds"), 0)
    assert isinstance(choice, DrawnSplit)
    samples = {part: list(members) for part, members in EIGHT.items()}
    samples["train"][0] = ("s1", 1)
    relabelled = write(tmp_path / "label.h5", samples)
    assert relabelled.fingerprint != eight.fingerprint
    samples["train"][0] = ("s3", 0)
    moved = write(tmp_path / "moved.h5", samples)
    assert moved.fingerprint == eight.fingerprint
    with pytest.raises(UserError, match=r"moved\.h5: split 'group-folds' of replicate 0 has the digest .* changed"):
        divide(moved, choice)


def test_a_file_that_changes_while_it_is_in_use_is_refused(eight: DatasetInfo) -> None:
    one = drawn(eight, scheme="group-folds")
    samples = {**EIGHT, "train": EIGHT["train"][1:]}
    write(eight.path, samples)
    with pytest.raises(UserError, match=r"eight\.h5: has changed"):
        read_split(one, "train")


@pytest.mark.parametrize("scheme", ["group-folds", "resample-valid"])
def test_a_file_without_groups_says_how_to_add_them(scheme: str, data_file: Path) -> None:
    with pytest.raises(UserError, match=r"data\.h5: scheme = '.*': the file has no groups .* Split\(groups=\.\.\.\)"):
        choose_split(read_info(data_file), SplitSettings(scheme=scheme), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"folds": 9}, "folds = 9, but the file has 8 groups"),
        ({"valid_groups": 7}, "no group is left for train: of 8 groups, 1 would be for test and 7 for validation"),
        ({"folds": 2, "valid_groups": 4}, "of 8 groups, 4 would be for test and 4 for validation"),
        ({"scheme": "resample-valid", "valid_groups": 4}, "of 8 groups, 4 would be for test and 4 for validation"),
    ],
)
def test_impossible_requests_are_refused_with_the_numbers(
    how: dict[str, Any], message: str, eight: DatasetInfo
) -> None:
    for replicate in range(8):
        with pytest.raises(UserError, match=message):
            choose_split(eight, SplitSettings(**{"scheme": "group-folds", **how}), replicate)


def test_two_groups_are_too_few_for_three_parts(tmp_path: Path) -> None:
    info = write(tmp_path / "two.h5", even({"train": ["a"], "valid": ["b"], "test": ["b"]}))
    with pytest.raises(UserError, match="of 2 groups, 1 would be for test and 1 for validation"):
        choose_split(info, SplitSettings(scheme="group-folds"), 0)


def test_a_test_group_that_is_also_in_train_cannot_stay(tmp_path: Path) -> None:
    info = write(tmp_path / "shared.h5", even({"train": ["a", "b", "c"], "valid": ["d"], "test": ["a", "e"]}))
    with pytest.raises(UserError, match=r"1 group of the file's test part \('a' for one\) is also in train or valid"):
        choose_split(info, SplitSettings(scheme="resample-valid"), 0)


def test_a_drawn_split_is_a_record_that_reads_back_equal(eight: DatasetInfo) -> None:
    one = drawn(eight, scheme="group-folds").split
    assert one is not None
    again = SplitRecord.model_validate_json(one.model_dump_json())
    assert (again, again.digest) == (one, one.digest)
    assert replace(eight, split=again) == replace(eight, split=one)
