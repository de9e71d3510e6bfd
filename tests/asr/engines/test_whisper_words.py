import numpy as np
import pytest

from services.asr.engines.whisper_words import timed_words
from services.asr.recognizer import Window
from services.common.timeline import samples
from services.common.words import Word

FRAME = samples(0.02)


def words_of(texts: list[str], *, frames: list[int] | None = None, first: int = 0) -> list[Word]:
    """The words of texts of one token each, five frames each unless told otherwise."""
    split = [(text, number + 1) for number, text in enumerate(texts)]
    places = np.array([5 * n for n in range(len(texts) + 1)] if frames is None else frames)
    window = Window(np.zeros(samples(3), np.float32), first)
    tokens = list(range(len(texts)))
    return list(timed_words(window, split, tokens, places, [0.1 * n for n in tokens]))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            [" He", " said", ' "', "no", '"', ",", " twice", "."],
            [" He", " said", ' "no",', " twice."],
        ),
        ([" one", "...", " two", "?"], [" one...", " two?"]),
        ([" (", "naß", ")"], [" (naß)"]),
        (["「", "鹰", "」", "，", "好"], ["「", "鹰", "」，", "好"]),  # noqa: RUF001 -- full-width is meant
        ([" a", "\ufffd", " b"], [" a", " b"]),
        ([" a", " \ufffd\ufffd"], [" a"]),
        ([".", " a"], [".", " a"]),
        ([" ", " a"], [" a"]),
        ([], []),
    ],
)
def test_punctuation_is_written_with_its_word_and_half_a_character_is_none(
    texts: list[str], words: list[str]
) -> None:
    assert [word.text for word in words_of(texts)] == words


def test_a_word_lasts_from_its_first_token_to_the_one_after_its_last() -> None:
    one, other = words_of([" one", " two"], frames=[3, 8, 20], first=1000)
    assert (one.first_sample, one.end_sample) == (1000 + 3 * FRAME, 1000 + 8 * FRAME)
    assert (other.first_sample, other.end_sample) == (1000 + 8 * FRAME, 1000 + 20 * FRAME)


def test_the_pause_that_punctuation_stands_for_is_of_no_word() -> None:
    one, other = words_of([" one", ".", '"', " two"], frames=[3, 8, 20, 30, 35], first=1000)
    assert (one.first_sample, one.end_sample) == (1000 + 3 * FRAME, 1000 + 8 * FRAME)
    assert (other.first_sample, other.end_sample) == (1000 + 30 * FRAME, 1000 + 35 * FRAME)
    assert one.token_ids == (0, 1, 2)
    assert one.probability == pytest.approx(0.1)


def test_words_stay_inside_their_window_and_last_a_sample_at_least() -> None:
    one, two, three = words_of([" a", " b", " c"], frames=[-1, -1, 150, 400], first=7)
    assert (one.first_sample, one.end_sample) == (7, 8)
    assert (two.first_sample, two.end_sample) == (7, 7 + samples(3))
    assert (three.first_sample, three.end_sample) == (7 + samples(3) - 1, 7 + samples(3))
