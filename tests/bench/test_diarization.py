import pytest

from bench.diarization import Case, known_after, said_in, score
from bench.diarizer_client import Told, told
from bench.mixtures import Conversation, SaidWord, SpokenBy
from bench.whose_words import settled
from services.common.audio import FloatArray, pcm_to_float
from services.common.timeline import samples
from voxmesh.diarizer.v1 import diarizer_pb2 as pb

SILENCE: FloatArray = pcm_to_float(b"")
TRUTH = (SpokenBy(0.0, 4.0, "ada"), SpokenBy(5.0, 9.0, "grace"), SpokenBy(10.0, 14.0, "ada"))


def scored(*turns: SpokenBy) -> dict[str, object]:
    case = Case("test", Conversation("one", SILENCE, TRUTH), (0.0, 15.0))
    return score(case, Told(turns, tuple((turn.end_s, turn) for turn in turns), 1.0))


def test_names_do_not_matter_to_a_score() -> None:
    row = scored(SpokenBy(0, 4, "2"), SpokenBy(5, 9, "1"), SpokenBy(10, 14, "2"))
    assert (row["missed_s"], row["false_s"], row["confused_s"]) == (0, 0, 0)
    assert (row["speakers"], row["speakers_told"], row["switches"]) == (2, 2, 0)
    assert row["jer_percent"] == 0


def test_what_is_wrong_is_counted_by_its_kind() -> None:
    row = scored(SpokenBy(1, 4, "1"), SpokenBy(5, 9.5, "2"), SpokenBy(10, 14, "2"))
    assert row["missed_s"] == 1
    assert row["false_s"] == 0.5
    assert row["confused_s"] == 4
    assert row["switches"] == 1


def test_borders_that_are_a_little_off_are_forgiven_with_a_collar() -> None:
    row = scored(SpokenBy(0.2, 4.2, "1"), SpokenBy(5.2, 9.2, "2"), SpokenBy(10.2, 14.2, "1"))
    assert row["missed_s"] == pytest.approx(0.6)
    assert row["collar_wrong_s"] == 0


def test_a_turn_is_known_when_it_is_first_ascribed_to_whom_it_belongs() -> None:
    said = [
        (5.5, SpokenBy(5.0, 5.5, "1")),
        (6.0, SpokenBy(5.0, 6.0, "2")),
        (6.5, SpokenBy(5.0, 6.5, "2")),
    ]
    assert known_after(TRUTH, said, {"1": "ada", "2": "grace"}) == [1.0]


def test_words_are_scored_where_they_are_known() -> None:
    words = (SaidWord("yes", 1, 2, "ada"), SaidWord("no", 6, 7, "grace"))
    case = Case("test", Conversation("one", SILENCE, TRUTH, words), (0.0, 15.0))
    turns = (SpokenBy(0, 14, "1"),)
    row = score(case, Told(turns, (), 1.0, tuple(settled(turns))))
    assert (row["words"], row["words_wrong"], row["words_permuted_errors"]) == (2, 1, 2)
    assert scored(*turns)["words"] == 0


def test_words_of_a_stretch_are_as_long_as_they_have_letters() -> None:
    stm = "call 1 grace 4.0 5.0 Oh, I see.\ncall 1 ada 1.0 3.0 Hello?\n"
    assert said_in(stm) == (
        SaidWord("Hello?", 1.0, 3.0, "ada"),
        SaidWord("Oh,", 4.0, 4.375, "grace"),
        SaidWord("I", 4.375, 4.5, "grace"),
        SaidWord("see.", 4.5, 5.0, "grace"),
    )


def test_what_is_revised_is_told_first_and_not_decided() -> None:
    def turns(speaker: int, first_s: float, end_s: float, settled_s: float) -> pb.Turns:
        turn = pb.Turn(speaker=speaker, first_sample=samples(first_s), end_sample=samples(end_s))
        return pb.Turns(
            turns=[turn], through_sample=samples(end_s), settled_sample=samples(settled_s)
        )

    found = told([turns(1, 0, 2, 1), turns(2, 1, 3, 3)], 0.5)
    assert found.turns == (SpokenBy(0, 1, "1"), SpokenBy(1, 3, "2"))
    assert [at_s for at_s, _ in found.first_told] == [2, 3]
