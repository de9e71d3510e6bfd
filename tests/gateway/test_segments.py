from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.common.words import Word
from services.gateway.segments import segments
from tests.conftest import TWO_CITIES

RATE = 16_000


def texts(words: list[Word]) -> list[str]:
    parts = segments(words)
    return ["".join(w.text for w in words[p.first_word : p.end_word]).strip() for p in parts]


def said(*pieces: str | float) -> list[Word]:
    """Words of 0.3 s one after the other; a number is a pause in seconds."""
    at, words = 0, []
    for piece in pieces:
        if isinstance(piece, str):
            for text in piece.split():
                words.append(Word(f" {text}", at, at + RATE * 3 // 10))
                at += RATE * 3 // 10
        else:
            at += round(piece * RATE)
    return words


def test_a_segment_is_a_sentence() -> None:
    words = said("It was late. Was it? Yes! He said “no.” And left")
    assert texts(words) == ["It was late.", "Was it?", "Yes!", "He said “no.”", "And left"]


def test_a_full_stop_before_lower_case_ends_nothing() -> None:
    assert texts(said("It costs approx. five euros.")) == ["It costs approx. five euros."]


def test_a_long_pause_ends_a_segment() -> None:
    assert texts(said("so I", 0.5, "thought", 2.5, "of you")) == ["so I thought", "of you"]


def test_a_sentence_of_minutes_is_parted_at_commas() -> None:
    words = said(TWO_CITIES.replace(".", ","))
    parts = texts(words)
    assert len(parts) >= 2
    assert all(part.endswith(",") for part in parts)


def test_a_segment_has_one_speaker() -> None:
    words = [
        replace(word, speaker=speaker)
        for word, speaker in zip(said("So you. No, not me. Oh."), (1, 1, 2, 3, 3, 3), strict=True)
    ]
    assert texts(words) == ["So you.", "No,", "not me.", "Oh."]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([" a", " b,", " c.", "d", " E"]),
            st.integers(1, 50 * RATE),
            st.integers(-RATE, 4 * RATE),
            st.integers(0, 2),
        )
    )
)
def test_every_word_is_in_one_segment_and_none_is_longer_than_a_window(
    spoken: list[tuple[str, int, int, int]],
) -> None:
    at, words = 0, []
    for text, length, pause, speaker in spoken:
        at = max(0, at + pause)
        words.append(Word(text, at, at + length, speaker=speaker))
        at += length
    parts = list(segments(words))
    borders = [0, *(part.end_word for part in parts)]
    assert [part.first_word for part in parts] == borders[:-1]
    assert borders[-1] == len(words)
    for part in parts:
        if part.end_word - part.first_word > 1:
            spans = words[part.first_word : part.end_word]
            assert spans[-1].end_sample - spans[0].first_sample <= 30 * RATE
            assert len({word.speaker for word in spans}) == 1
    for end in range(1, len(words)):
        *ended, _ = segments(words[:end])
        assert ended == parts[: len(ended)], "words that follow change no segment but the last"
