import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.words import Word
from services.gateway.subtitle_layout import columns
from services.gateway.subtitles import Cue, cues, srt, vtt
from tests.conftest import TWO_CITIES

RATE = 16_000

TEXTS = st.one_of(
    st.from_regex(r" [A-Za-z]{1,12}[.,?!]?", fullmatch=True),
    st.sampled_from([" Mr.", "-way", " 'tis", " New York", "'s", " <b>&", " x" * 3]),
    st.from_regex(r"[一-龥ぁ-ん]{1,4}[。、]?", fullmatch=True),
    st.from_regex(r" [가-힣]{1,6}", fullmatch=True),
    st.from_regex(r" [ก-๙]{1,60}", fullmatch=True),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=120),
)
TIMES = st.integers(0, 40_000)


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    """Words in order, some at once, some long, some after a long pause, some stepping back."""
    at, words = draw(TIMES), []
    for text in draw(st.lists(TEXTS, max_size=60)):
        at = max(0, at + draw(st.one_of(TIMES, st.integers(-3000, 200_000))))
        words.append(Word(text, at, at + draw(st.one_of(st.just(1), TIMES))))
    return words


def fluent(text: str, *, rate: float = 14) -> list[Word]:
    """Words said without a pause, at so many characters a second."""
    at, words = 0, []
    for word in text.split():
        length = round((len(word) + 1) / rate * RATE)
        words.append(Word(f" {word}", at, at + length))
        at += length
    return words


def squeezed(text: str) -> str:
    return "".join(text.split())


def check(shown: Sequence[Cue], words: Sequence[Word]) -> None:
    assert squeezed("".join(cue.text for cue in shown)) == squeezed("".join(w.text for w in words))
    for cue in shown:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < columns(line) <= 42 for line in cue.lines)
        assert 0 < cue.end_sample - cue.first_sample <= 7 * RATE
    for cue, following in pairwise(shown):
        assert cue.end_sample <= following.first_sample


@settings(deadline=None, max_examples=300)
@given(spoken())
def test_whatever_is_said_is_shown_once_in_order_and_within_the_limits(words: list[Word]) -> None:
    check(cues(words), words)


def label(speaker: int) -> str:
    return f"Speaker {speaker}"


@settings(deadline=None, max_examples=300)
@given(spoken(), st.lists(st.integers(1, 3), min_size=60, max_size=60))
def test_a_cue_is_of_one_speaker_and_each_turn_begins_with_whose_it_is(
    words: list[Word], speakers: list[int]
) -> None:
    words = [replace(word, speaker=one) for word, one in zip(words, speakers, strict=False)]
    shown = cues(words, label)
    for cue in shown:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < columns(line) <= 42 for line in cue.lines)
    visible = [word for word in words if word.text.strip()]
    said = ""
    for at, word in enumerate(visible):
        turns = not at or visible[at - 1].speaker != word.speaker
        said += f"{label(word.speaker)}: " * turns + word.text
    assert squeezed("".join(cue.text for cue in shown)) == squeezed(said)


def test_speakers_are_named_where_they_take_turns() -> None:
    words = fluent("Hello there. How are you? Fine. And you? I am very well, thank you.")
    speakers = (1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2)
    said = [replace(word, speaker=one) for word, one in zip(words, speakers, strict=True)]
    assert [cue.text for cue in cues(said, {1: "Ann", 2: "Speaker\n\n1"}.__getitem__)] == [
        "Ann: Hello there.",
        "Speaker 1: How are you?",
        "Ann: Fine. And you?",
        "Speaker 1: I am very well, thank you.",
    ]


def test_an_hour_without_a_pause_or_a_full_stop_is_parted_well() -> None:
    """P25: never one cue for a whole file."""
    text = re.sub("[.,;-]", "", TWO_CITIES).lower()
    words = fluent(f"{text} " * 85)
    assert words[-1].end_sample > 3600 * RATE
    shown = cues(words)
    check(shown, words)
    lengths = [(cue.end_sample - cue.first_sample) / RATE for cue in shown]
    assert min(lengths[:-1]) >= 1
    for cue, length in zip(shown, lengths, strict=True):
        assert columns(cue.text.replace("\n", "")) / length <= 20
    assert sum(lengths) / len(lengths) > 3


def test_no_reader_is_rushed_where_the_speaker_is_not() -> None:
    words = fluent(TWO_CITIES, rate=18)
    for cue in cues(words):
        assert columns(cue.text) / ((cue.end_sample - cue.first_sample) / RATE) <= 20


def test_cues_end_where_sentences_and_clauses_do() -> None:
    shown = cues(fluent(TWO_CITIES))
    assert all(cue.text.endswith((",", ".", ";")) for cue in shown)


def test_sentences_do_not_share_a_cue_that_both_could_fill() -> None:
    words = fluent("I have read the letter that you sent me. She will answer it on Monday morning.")
    assert [cue.text.replace("\n", " ") for cue in cues(words)] == [
        "I have read the letter that you sent me.",
        "She will answer it on Monday morning.",
    ]


def test_a_long_silence_parts_cues() -> None:
    words = [Word(" One", 0, RATE // 2), Word(" two.", 5 * RATE, 5 * RATE + RATE // 2)]
    assert [cue.text for cue in cues(words)] == ["One", "two."]


def test_a_short_word_stays_long_enough_to_be_read() -> None:
    (cue,) = cues([Word(" Yes.", 1000, 1800)])
    assert cue.end_sample - cue.first_sample == RATE


def test_a_word_that_seems_to_last_for_ever_does_not_stay_for_ever() -> None:
    (cue,) = cues([Word(" Oh.", 0, 60 * RATE)])
    assert cue.end_sample == 7 * RATE


def test_lines_are_about_equally_long_and_break_at_a_comma() -> None:
    (cue,) = cues(fluent("When all of this was over, we went back home to sleep."))
    assert cue.lines == ("When all of this was over,", "we went back home to sleep.")


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        ([" e.g.", " this", " one"], ("e.g. this one",)),
        ([" one", "-way", " street"], ("one-way street",)),
        (["今天", "天气", "很好", "。"], ("今天天气很好。",)),
    ],
)
def test_words_are_joined_as_they_are_written(texts: list[str], lines: tuple[str, ...]) -> None:
    words = [Word(text, i * 4000, i * 4000 + 4000) for i, text in enumerate(texts)]
    assert [cue.lines for cue in cues(words)] == [lines]


def test_ideographs_take_two_columns_and_no_line_begins_with_a_full_stop() -> None:
    text = "我们都要直接去天堂我们都要直接走另一条路。" * 8
    words = [Word(character, i * 1500, i * 1500 + 1500) for i, character in enumerate(text)]
    shown = cues(words)
    check(shown, words)
    lines = [line for cue in shown for line in cue.lines]
    assert max(map(len, lines)) <= 21
    assert not any(line.startswith("。") for line in lines)


def test_nothing_said_is_nothing_shown() -> None:
    assert cues([]) == cues([Word("  ", 0, 100)]) == []
    assert srt([]) == ""
    assert vtt([]) == "WEBVTT\n\n"


def test_subrip_is_written_with_commas() -> None:
    cue = Cue(3725 * RATE + 8000, 3727 * RATE + 16, ("Yes & <no>,", "I said."))
    assert srt([cue, cue]) == (
        "1\n01:02:05,500 --> 01:02:07,001\nYes & <no>,\nI said.\n\n"
        "2\n01:02:05,500 --> 01:02:07,001\nYes & <no>,\nI said.\n\n"
    )


def test_webvtt_is_written_with_points_and_escaped() -> None:
    cue = Cue(0, 101 * 3600 * RATE, ("Yes & <no> --> ok",))
    assert vtt([cue]) == (
        "WEBVTT\n\n00:00:00.000 --> 101:00:00.000\nYes &amp; &lt;no&gt; --&gt; ok\n\n"
    )
