"""The clock: when words of the reference could be read."""

import math

import pytest

from bench.converse import Captions, Heard
from bench.corpus import TimedWord
from bench.delays import Clockwork, beginning, speech_ends, word_end_errors


def said(*words: tuple[str, float, float]) -> list[TimedWord]:
    return [TimedWord(*word) for word in words]


def told(at_s: float, words: str = "", tail: str = "", end_s: float = 0.0) -> Captions:
    """A message; its words end one after the other, the last of them at ``end_s``."""
    split = words.split()
    ends_s = [end_s - 0.3 * (len(split) - 1 - place) for place in range(len(split))]
    timed = tuple(
        TimedWord(f" {word}", end - 0.2, end) for word, end in zip(split, ends_s, strict=True)
    )
    return Captions(at_s, timed, tail)


TO_BE = said(("to", 0.0, 0.3), ("be", 0.3, 0.6), ("or", 1.5, 1.8), ("not", 1.8, 2.1))


def test_a_word_is_first_shown_in_a_tail_and_final_when_it_is_committed() -> None:
    heard = Heard(
        captions=[
            told(0.8, tail="To bee"),
            told(1.3, "To", "be", end_s=0.4),
            told(2.3, "be", "or not", end_s=0.7),
            told(3.0, "or not.", end_s=2.2),
        ]
    )
    delays = Clockwork(TO_BE, heard, "en").delays()
    assert [delay.index for delay in delays] == [0, 1, 2, 3]
    assert [delay.first_s for delay in delays] == pytest.approx([0.5, 0.7, 0.5, 0.2])
    assert [delay.final_s for delay in delays] == pytest.approx([1.0, 1.7, 1.2, 0.9])
    assert [delay.time_error_s for delay in delays] == pytest.approx([0.1, 0.1, 0.1, 0.1])


def test_a_word_that_comes_and_goes_remains_from_its_last_coming() -> None:
    heard = Heard(
        captions=[
            told(0.5, tail="to"),
            told(0.8, tail="two"),
            told(1.0, tail="to"),
            told(1.4, "to", end_s=0.3),
        ]
    )
    [delay] = Clockwork(TO_BE, heard, "de").delays()
    assert delay.first_s == pytest.approx(0.2)
    assert delay.remained_s == pytest.approx(0.7)
    assert delay.final_s == pytest.approx(1.1)


def test_a_misheard_word_is_left_out_and_moves_no_other() -> None:
    heard = Heard(captions=[told(2.5, "to bee hm or not", end_s=2.1)])
    delays = Clockwork(TO_BE, heard, "de").delays()
    assert [delay.index for delay in delays] == [0, 2, 3]
    assert [delay.final_s for delay in delays] == pytest.approx([2.2, 0.7, 0.4])


def test_a_word_of_the_tail_that_is_not_spoken_yet_is_a_guess_and_not_shown() -> None:
    heard = Heard(captions=[told(0.7, tail="to be or not"), told(2.4, "to be or not", end_s=2.1)])
    delays = Clockwork(TO_BE, heard, "en").delays()
    assert [delay.first_s for delay in delays] == pytest.approx([0.4, 0.1, 0.6, 0.3])


def test_a_word_that_is_two_to_the_normaliser_is_one_to_the_clock() -> None:
    heard = Heard(captions=[told(1.0, "I'm here", end_s=0.6)])
    reference = said(("i", 0.0, 0.1), ("am", 0.1, 0.3), ("here", 0.3, 0.6))
    delays = Clockwork(reference, heard, "en").delays()
    assert [delay.final_s for delay in delays] == pytest.approx([0.9, 0.7, 0.4])


def test_at_another_pace_words_are_spoken_sooner_by_the_wall_clock() -> None:
    heard = Heard(pace=2, captions=[told(1.5, "to be or not", end_s=2.1)])
    delays = Clockwork(TO_BE, heard, "en").delays()
    assert [delay.final_s for delay in delays] == pytest.approx([1.35, 1.2, 0.6, 0.45])


def test_speech_ends_before_pauses_and_with_the_last_word() -> None:
    assert speech_ends(TO_BE) == [1, 3]
    assert speech_ends([]) == []


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ([told(1.2, "to be", end_s=0.6), told(2.9, "or not", end_s=2.1)], [0.6, 0.8]),
        ([told(1.2, "to bee", end_s=0.7), told(2.9, "or not", end_s=2.1)], [0.6, 0.8]),
        ([told(1.2, "to", end_s=0.3), told(2.9, "or not", end_s=2.1)], [None, 0.8]),
        (
            [told(1.2, "to", end_s=0.3), told(2.7, "bore", end_s=1.8), told(2.9, "not", end_s=2.1)],
            [None, 0.8],
        ),
        ([], [None, None]),
    ],
    ids=["heard", "misheard", "lost", "misheard behind the pause", "silent"],
)
def test_speech_that_ended_is_final_when_its_last_word_is(
    captions: list[Captions], expected: list[float | None]
) -> None:
    found = Clockwork(TO_BE, Heard(captions=captions), "de").speech_ends()
    assert found == [None if end is None else pytest.approx(end) for end in expected]


def test_words_without_times_have_delays_all_the_same() -> None:
    words = tuple(TimedWord(word, math.nan, math.nan) for word in ("to", "be", "or", "not"))
    clock = Clockwork(TO_BE, Heard(captions=[Captions(2.5, words, "")]), "en")
    assert [delay.final_s for delay in clock.delays()] == pytest.approx([2.2, 1.9, 0.7, 0.4])
    assert clock.speech_ends() == [pytest.approx(1.9), pytest.approx(0.4)]


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("a b c d", "a b", [0, 1]),
        ("a b c d", "x b", [1]),
        ("a b c d", "b", [1]),
        ("a b c a b", "a b", [0, 1]),
        ("a b c d", "a c d", [0, 2, 3]),
        ("a b c d", "a x y b", [0, 1]),
        ("a b", "", []),
        ("", "a b", []),
        ("a b c", "x y z", []),
    ],
)
def test_a_tail_is_the_beginning_of_what_follows(
    reference: str, text: str, expected: list[int]
) -> None:
    assert beginning(reference.split(), text.split()) == expected


def test_word_ends_are_compared_where_the_words_were_heard_right() -> None:
    heard = said(("to", 0.0, 0.4), ("bee", 0.3, 0.9), ("or", 1.5, 1.7), ("not", 1.8, 2.4))
    assert word_end_errors(TO_BE, heard, "de") == pytest.approx([0.1, 0.1, 0.3])
    assert word_end_errors(TO_BE, [], "de") == []
