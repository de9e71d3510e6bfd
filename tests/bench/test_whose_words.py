import pytest

from bench.mixtures import SaidWord, SpokenBy
from bench.whose_words import attributed, permuted_errors, settled, wrong_words
from services.common.timeline import samples
from voxmesh.diarizer.v1 import diarizer_pb2 as pb


def words(whose: str) -> list[SaidWord]:
    """Each letter says a word of its own, one every half second."""
    return [
        SaidWord(f"word{number}", 0.5 * number, 0.5 * number + 0.4, speaker)
        for number, speaker in enumerate(whose)
    ]


@pytest.mark.parametrize(
    ("said", "told", "wrong", "permuted"),
    [
        # Names do not matter.
        ("aabb", "2211", 0, 0),
        # One word of another one: it lacks here, and is too many there.
        ("aaabbb", "111122", 1, 2),
        # One told apart into two: what the lesser one says lacks, and is nobody's.
        ("aaaaa", "11122", 2, 4),
        # Two who were not told apart.
        ("aaabb", "11111", 2, 4),
        # A word swapped for another is one error on either side.
        ("aabb", "1212", 2, 2),
        # Nobody was told more than one of: the mapping is one to one.
        ("abc", "111", 2, 4),
        ("", "", 0, 0),
    ],
)
def test_words_of_the_wrong_speaker_are_counted_with_the_best_mapping(
    said: str, told: str, wrong: int, permuted: int
) -> None:
    assert wrong_words(words(said), list(told)) == wrong
    assert permuted_errors(words(said), list(told)) == permuted


def test_a_word_is_ascribed_to_whoever_speaks_meanwhile() -> None:
    turns = (SpokenBy(0, 1, "anna"), SpokenBy(1, 2, "bert"), SpokenBy(2, 3, "anna"))
    assert attributed(words("aabbaa"), settled(turns)) == list("112211")


def test_what_was_revised_before_it_was_decided_does_not_count() -> None:
    def said(speaker: int, through_s: float, settled_s: float) -> pb.Turns:
        turn = pb.Turn(speaker=speaker, end_sample=samples(through_s))
        return pb.Turns(
            turns=[turn],
            through_sample=samples(through_s),
            settled_sample=samples(settled_s),
        )

    assert attributed(words("aaaa"), [said(2, 1, 0), said(1, 4, 4)]) == list("1111")


def test_words_that_come_after_all_messages_are_ascribed_too() -> None:
    assert attributed(words("aab"), settled((SpokenBy(0, 0.9, "anna"),))) == list("111")
    assert attributed(words("a"), []) == ["1"]
