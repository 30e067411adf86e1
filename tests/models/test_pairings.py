"""The specification's pairing table, written out by hand."""

from dataclasses import replace

import pytest

from mmkd.errors import UserError
from mmkd.models.pairings import Pairing, canonical_name, ends_of, fusion_name, is_fusion, resolve_pairing

V, A, L = "video", "audio", "language"
ALL = [V, A, L]

# name: (teacher's branch, student's stacks, distilled)
TABLE = {
    "video": (V, {"video<-video", "audio<-video", "language<-video"}, {"audio<-video", "language<-video"}),
    "language": (L, {"video<-video", "video<-language", "audio<-language"}, {"video<-language", "audio<-language"}),
    "audio": (A, {"video<-video", "video<-audio", "language<-audio"}, {"video<-audio", "language<-audio"}),
    "language_audio": (None, {"video<-video", "video<-language", "video<-audio"}, {"video<-language", "video<-audio"}),
}


def stack_names(pairing: Pairing) -> set[str]:
    names = {f"{source}<-{query}" for source, query in pairing.stacks}
    assert len(names) == len(pairing.stacks)
    return names


@pytest.mark.parametrize("name", TABLE)
def test_a_pairing_of_primary_video_is_the_row_of_the_specification(name: str) -> None:
    pairing = resolve_pairing(name, V, ALL)
    assert (pairing.branch, stack_names(pairing), set(pairing.distilled)) == TABLE[name]
    assert len(set(pairing.distilled)) == len(pairing.distilled)
    assert not pairing.fused


def test_complete_has_all_nine_stacks_of_the_teacher_and_distils_them_all() -> None:
    pairing = resolve_pairing("complete", V, ALL)
    crossmodal = {f"{y}<-{x}" for x in ALL for y in ALL if x != y}
    assert pairing.branch is None
    assert pairing.fused
    assert stack_names(pairing) == crossmodal
    assert set(pairing.distilled) == crossmodal | {f"fusion:{m}" for m in ALL}
    assert len(pairing.distilled) == 9


@pytest.mark.parametrize("primary", ALL)
def test_multimodal_is_complete_but_for_its_inputs_whatever_the_primary(primary: str) -> None:
    pairing = resolve_pairing("multimodal", primary, ALL)
    assert replace(pairing, name="complete", inputs=(V,)) == resolve_pairing("complete", V, ALL)
    assert pairing.inputs == tuple(ALL)


@pytest.mark.parametrize("name", ["complete", "others", *ALL])
def test_every_other_student_is_given_its_primary_alone(name: str) -> None:
    assert resolve_pairing(name, L, ALL).inputs == (L,)


@pytest.mark.parametrize("primary", ["audio", "language", "imu"])
@pytest.mark.parametrize("modalities", [["video", "audio", "language", "imu"], ["imu", "language", "audio"]])
def test_any_modality_may_be_the_primary(primary: str, modalities: list[str]) -> None:
    for branch in modalities:
        pairing = resolve_pairing(branch, primary, modalities)
        distilled = {f"{y}<-{branch}" for y in modalities if y != branch}
        assert pairing.branch == branch
        assert set(pairing.distilled) == distilled
        assert stack_names(pairing) == distilled | {f"{primary}<-{primary}"}
    others = resolve_pairing("others", primary, modalities)
    distilled = {f"{primary}<-{m}" for m in modalities if m != primary}
    assert others.branch is None
    assert set(others.distilled) == distilled
    assert stack_names(others) == distilled | {f"{primary}<-{primary}"}
    complete = resolve_pairing("complete", primary, modalities)
    assert len(complete.stacks) == len(modalities) * (len(modalities) - 1)
    assert len(complete.distilled) == len(modalities) ** 2


def test_two_modalities_are_enough() -> None:
    names = ["depth", "imu"]
    assert stack_names(resolve_pairing("others", "depth", names)) == {"depth<-depth", "depth<-imu"}
    assert resolve_pairing("others", "depth", names).distilled == ("depth<-imu",)
    assert stack_names(resolve_pairing("depth", "depth", names)) == {"depth<-depth", "imu<-depth"}
    assert resolve_pairing("imu", "depth", names).branch == "imu"  # the modality, not an alias of `others`
    assert len(resolve_pairing("complete", "depth", names).distilled) == 4


def test_no_pairing_distils_the_primary_on_itself_outside_complete() -> None:
    for primary in ALL:
        for name in ("others", *ALL):
            assert f"{primary}<-{primary}" not in resolve_pairing(name, primary, ALL).distilled


@pytest.mark.parametrize(
    ("alias", "primary", "modalities"),
    [
        ("language_audio", V, ALL),
        ("audio_language", V, ALL),
        ("video_audio", L, ALL),
        ("skeleton_imu", "depth", ["depth", "imu", "skeleton"]),
        ("c_d_b", "a", ["a", "b", "c", "d"]),
    ],
)
def test_the_other_modalities_joined_in_any_order_mean_others(alias: str, primary: str, modalities: list[str]) -> None:
    assert canonical_name(alias, primary, modalities) == "others"
    assert resolve_pairing(alias, primary, modalities) == resolve_pairing("others", primary, modalities)


@pytest.mark.parametrize("name", ["language_audio", "audio_video", "video_language_audio", "language_language", "all"])
def test_what_is_not_all_the_others_is_no_pairing(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown pairing '{name}'") as caught:
        resolve_pairing(name, L, ALL) if name == "language_audio" else resolve_pairing(name, V, ALL)
    assert str(caught.value).count("\n") == 0
    for choice in ("complete", "others", "multimodal", *ALL):
        assert choice in str(caught.value)


def test_a_misspelt_pairing_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean complete"):
        resolve_pairing("complet", V, ALL)


def test_an_unknown_primary_is_told_the_choices() -> None:
    with pytest.raises(UserError, match=r"unknown primary modality 'vidoe'; did you mean video\?") as caught:
        resolve_pairing("complete", "vidoe", ALL)
    assert "audio, language, video" in str(caught.value)


def test_one_modality_alone_has_no_teacher() -> None:
    with pytest.raises(UserError, match="two modalities or more"):
        resolve_pairing("complete", V, [V])


def test_names_of_stacks_are_read_back() -> None:
    assert ends_of("audio<-video") == ("audio", "video")
    assert ends_of(fusion_name("video")) == ("video", "video")
    assert is_fusion(fusion_name("video"))
    assert not is_fusion("audio<-video")


def test_a_pairing_with_a_modality_that_the_data_lack_says_how_many_it_needs() -> None:
    with pytest.raises(UserError, match="'other2' needs 3 modalities, the data have video, audio: leave the row out"):
        canonical_name("other2", "video", ("video", "audio"))
