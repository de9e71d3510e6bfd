from dataclasses import replace

import pytest

from services.common.words import Word
from services.gateway.lines import LINE_CHARS, SILENCE, Line, Lines, clock

RATE = 16_000


def said(*words: tuple[str, float, float]) -> list[Word]:
    return [Word(text, round(a * RATE), round(b * RATE)) for text, a, b in words]


def lines_of(words: list[Word]) -> list[Line]:
    lines = Lines()
    lines.extend(words)
    return list(lines[:])


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (0, "0:00:00.00"),
        (19_200, "0:00:01.20"),
        (79, "0:00:00.00"),
        (80, "0:00:00.01"),
        (59 * RATE + 15_999, "0:01:00.00"),
        (3723 * RATE + 6400, "1:02:03.40"),
        (100 * 3600 * RATE, "100:00:00.00"),
    ],
)
def test_positions_are_written_to_the_nearest_hundredth(sample: int, text: str) -> None:
    assert clock(sample) == text


def test_words_without_a_long_pause_make_one_line() -> None:
    [line] = lines_of(said((" To", 1, 1.2), (" be,", 1.3, 2), (" or", 6.9, 7), (" not", 7, 7.5)))
    assert line == Line(1, "To be, or not", RATE, round(7.5 * RATE))


def test_a_pause_of_more_than_five_seconds_is_a_line_of_its_own() -> None:
    before, pause, after = lines_of(said((" one", 1, 2), (" two", 7.01, 8)))
    assert before == Line(1, "one", RATE, 2 * RATE)
    assert pause == Line(SILENCE, "", 2 * RATE, round(7.01 * RATE))
    assert after.text == "two"
    assert len(lines_of(said((" one", 1, 2), (" two", 7.0, 8)))) == 1


def test_a_line_is_one_speakers_and_punctuation_stays_where_it_is() -> None:
    words = said((" Was", 1, 2), (" it", 2, 3), ("?", 3, 4), (" No", 4, 5), (" one", 12, 13))
    speakers = (1, 1, 2, 2, 2)
    lines = lines_of([replace(w, speaker=s) for w, s in zip(words, speakers, strict=True)])
    assert [(line.speaker, line.text) for line in lines] == [
        (1, "Was it?"),
        (2, "No"),
        (SILENCE, ""),
        (2, "one"),
    ]
    assert lines[1].first_sample == 4 * RATE


def test_who_is_not_told_apart_is_the_first_speaker() -> None:
    nobody, first = said((" To", 1, 2), (" be", 2, 3))
    assert [line.text for line in lines_of([nobody, replace(first, speaker=1)])] == ["To be"]


def test_silence_before_the_first_word_counts_too() -> None:
    pause, line = lines_of(said((" hello", 6, 7)))
    assert (pause.speaker, pause.first_sample, pause.end_sample) == (SILENCE, 0, 6 * RATE)
    assert line.text == "hello"


def test_a_long_line_ends_with_its_sentence() -> None:
    words = said(*((f" word{i:03}" + "." * (i % 10 == 9), i, i + 1) for i in range(60)))
    lines = lines_of(words)
    assert [line.text[-1] for line in lines] == ["."] * len(lines)
    assert all(200 < len(line.text) <= 300 for line in lines[:-1])
    assert " ".join(line.text for line in lines) == "".join(w.text for w in words).strip()


def test_no_line_is_longer_than_the_limit_and_punctuation_is_never_alone() -> None:
    words = said(*((" abcd", i, i + 1) for i in range(79)), (" abcd", 79, 80), (" .", 80, 81))
    words += said(*((" abcd", i, i + 1) for i in range(81, 400)))
    lines = lines_of(words)
    assert all(len(line.text) <= LINE_CHARS + 2 for line in lines)
    assert not any(line.text.startswith(".") for line in lines)


def test_lines_that_were_read_never_change() -> None:
    lines = Lines()
    lines.extend(said((" one", 0, 1)))
    [first] = lines[:]
    lines.extend(said((" two", 1, 2)))
    assert first.text == "one"
    assert [line.text for line in lines[:]] == ["one two"]
