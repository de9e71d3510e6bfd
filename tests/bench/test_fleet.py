import pytest

from bench.corpus import Clip
from bench.fleet import Play, cpu_per_audio, plan, share_out
from bench.mesh import Sample

CLIPS = [Clip(name, b"", "", "en") for name in "abc"]


def ids(plays: list[list[Play]]) -> list[str]:
    return ["".join(play.clip.id for play in own) for own in plays]


def test_each_client_begins_with_another_clip_and_goes_round() -> None:
    assert ids(plan(CLIPS, 4)) == ["abc", "bca", "cab", "abc"]
    assert ids(plan(CLIPS, 2, turns=2)) == ["ab", "bc"]
    assert ids(plan(CLIPS, 1, turns=5)) == ["abcab"]


def test_clips_that_are_shared_out_are_played_once() -> None:
    assert ids(share_out(CLIPS, 2)) == ["ac", "b"]
    assert ids(share_out(CLIPS, 4)) == ["a", "b", "c", ""]


def test_no_two_plays_of_a_plan_have_the_same_key() -> None:
    keys = [play.key for own in plan(CLIPS, 4, turns=6) for play in own]
    assert len(set(keys)) == len(keys) == 24


def test_cost_is_all_cpu_time_for_all_audio() -> None:
    used = [Sample(1.0, 5.0, 5.0, 0), Sample(3.0, 5.0, 5.0, 0), Sample(0.5, 0.0, 5.0, 0)]
    assert cpu_per_audio(used) == pytest.approx(0.45)
    assert cpu_per_audio([]) is None
