"""Words and turns -> who said which word. A word takes 0.4 s; one begins every half second."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.timeline import samples
from services.common.words import Word
from services.gateway.speakers import Speakers, Turn
from services.gateway.transcript import Scores, Transcript

A, B = 1, 2


def words(text: str) -> list[Word]:
    """A word every half second."""
    return [
        Word(f" {word}", samples(0.5 * at), samples(0.5 * at + 0.4))
        for at, word in enumerate(text.split())
    ]


def turns(*told: tuple[int, float, float]) -> list[Turn]:
    return [Turn(speaker, samples(first_s), samples(end_s)) for speaker, first_s, end_s in told]


def attributed(said: Sequence[Word], told: Sequence[Turn]) -> list[int]:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(said, Scores())
    speakers.hear(told, 0, samples(1000))
    assert [word.text for word in transcript.words] == [word.text for word in said]
    assert transcript.held == ()
    return [word.speaker for word in transcript.words]


@pytest.mark.parametrize(
    ("text", "told", "expected"),
    [
        # Each word has the speaker whose turn it shares most with.
        ("a b c d", [(A, 0, 1), (B, 1, 2)], [A, A, B, B]),
        ("a b c d", [(A, 0, 0.7), (B, 0.6, 2)], [A, B, B, B]),
        # Who speaks goes on speaking while nobody speaks longer.
        ("a b c", [(A, 0, 1.5), (B, 0.5, 1.5)], [A, A, A]),
        # A word in nobody's turn has the nearest one; far from all, the speaker before.
        ("a b c", [(A, 0, 0.3), (B, 0.95, 2)], [A, B, B]),
        ("a b c d e f", [(A, 0, 0.5)], [A, A, A, A, A, A]),
        ("a b", [], [A, A]),
        # Punctuation stays with its word.
        ("a . b", [(A, 0, 0.5), (B, 0.5, 2)], [A, A, B]),
        # A change where a sentence ends stays there.
        ("So it is. Yes it is", [(A, 0, 1.5), (B, 1.5, 3)], [A, A, A, B, B, B]),
        # One shortly after the end of a sentence is moved back to it ...
        ("So it is. Yes it", [(A, 0, 2), (B, 2, 3)], [A, A, A, B, B]),
        # ... one shortly before it, on to it ...
        ("So it is. Yes it", [(A, 0, 1), (B, 1, 3)], [A, A, A, B, B]),
        # ... but not far, ...
        ("a b c d e. f", [(A, 0, 1), (B, 1, 3)], [A, A, B, B, B, B]),
        # ... and a sentence of one word keeps its speaker.
        ("Is it so Yes. Well", [(A, 0, 1.5), (B, 1.5, 2), (A, 2, 3)], [A, A, A, B, A]),
        ("Is it. Yes. Well then", [(A, 0, 1), (B, 1, 1.5), (A, 1.5, 3)], [A, A, B, A, A]),
    ],
)
def test_every_word_gets_its_speaker(
    text: str, told: list[tuple[int, float, float]], expected: list[int]
) -> None:
    assert attributed(words(text), turns(*told)) == expected


def test_a_word_over_which_somebody_else_speaks_is_marked() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("a b c"), Scores())
    speakers.hear(turns((A, 0, 1.5), (B, 0.5, 0.9)), 0, samples(10))
    assert [word.overlapped for word in transcript.words] == [False, True, False]


def test_words_wait_for_what_is_decided_and_for_the_two_words_behind_them() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("a b c d e"), Scores())
    assert [word.text for word in transcript.held] == [" a", " b", " c", " d", " e"]
    assert transcript.tail == transcript.held
    assert not transcript.words
    speakers.hear(turns((A, 0, 3)), 0, samples(0.95))
    assert not transcript.words
    speakers.hear(turns((A, 0, 3)), 0, samples(1.9))
    assert [word.text for word in transcript.words] == [" a", " b"]
    assert [word.text for word in transcript.held] == [" c", " d", " e"]
    speakers.hear(turns((A, 0, 3)), 0, samples(3.5))
    assert len(transcript.words) == 5


def test_the_end_of_a_sentence_waits_for_no_other_word() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("So it is."), Scores())
    speakers.hear(turns((A, 0, 3)), 0, samples(1.4))
    assert len(transcript.words) == 3


def test_all_words_before_a_decision_are_let_in() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("a b c"), Scores())
    speakers.hear(turns((A, 0, 1), (B, 1, 2)), 0, samples(0.2))
    speakers.settle(samples(1.2))
    assert [word.speaker for word in transcript.words] == [A, A, B]


def test_words_that_wait_no_longer_have_whoever_seems_to_speak() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("a b c"), Scores())
    speakers.hear(turns((B, 0, 3)), 0, 0)
    speakers.release()
    assert [word.speaker for word in transcript.words] == [B, B, B]
    assert speakers.oldest is None


def test_when_nobody_tells_speakers_apart_words_wait_no_more_and_the_last_speaker_goes_on() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    said = words("a b c d")
    speakers.commit(said[:2], Scores())
    speakers.hear(turns((B, 0, 1)), 0, samples(1))
    speakers.give_up()
    speakers.commit(said[2:], Scores())
    assert [word.speaker for word in transcript.words] == [B, B, B, B]


def test_what_a_later_message_says_takes_the_place_of_what_was_not_decided() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    speakers.commit(words("a b c d"), Scores())
    speakers.hear(turns((A, 0, 2)), 0, samples(0.4))
    speakers.hear(turns((B, 0.4, 2)), samples(0.4), samples(10))
    assert [word.speaker for word in transcript.words] == [A, B, B, B]


def test_runs_keep_their_scores_however_late_their_words_come() -> None:
    transcript = Transcript()
    speakers = Speakers(transcript)
    said = words("a b c d e f")
    speakers.commit(said[:4], Scores(avg_log_probability=-0.1))
    speakers.commit([], Scores(avg_log_probability=-0.2))
    speakers.commit(said[4:], Scores(avg_log_probability=-0.3))
    speakers.hear(turns((A, 0, 3)), 0, samples(1.4))
    speakers.hear(turns((A, 0, 3)), 0, samples(10))
    told = [
        (decoding.first_word, decoding.num_words, decoding.avg_log_probability)
        for decoding in transcript.decodings
    ]
    assert sum(number for _, number, _ in told) == 6
    assert all(first < 4 for first, number, score in told if number and score == -0.1)
    assert [score for _, _, score in told][-1] == -0.3


CUTS = st.lists(st.integers(0, 12), max_size=6)


@given(CUTS, CUTS, st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), max_size=8))
def test_every_word_comes_once_and_in_order_whatever_is_known_when(
    commits: list[int], hears: list[int], spoken: list[tuple[int, int]]
) -> None:
    said = words("a b. C d e f. g H i j k. l")
    told = sorted(
        turns(*((speaker, at / 2, at / 2 + 0.7) for speaker, at in spoken)),
        key=lambda turn: turn.first_sample,
    )
    transcript = Transcript()
    speakers = Speakers(transcript)
    committed = 0
    for cut, settled in zip(sorted([*commits, 12]), [*sorted(hears), *[12] * 7], strict=False):
        speakers.commit(said[committed:cut], Scores())
        committed = max(committed, cut)
        speakers.hear(told, 0, samples(settled / 2))
        both = [*transcript.words, *transcript.held]
        assert [word.text for word in both] == [word.text for word in said[:committed]]
    speakers.release()
    assert [replace(word, speaker=0, overlapped=False) for word in transcript.words] == said
    assert all(word.speaker >= 1 for word in transcript.words)
