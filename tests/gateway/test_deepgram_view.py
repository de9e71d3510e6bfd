"""What a live stream of ``/v1/listen`` is told, as the transcript grows."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.words import Word
from services.gateway.protocols.deepgram_view import Manner, View
from services.gateway.protocols.deepgram_words import Style, alternative
from services.gateway.transcript import Transcript
from tests.gateway.fakes import RATE
from tests.gateway.listening import text_of

MS = RATE // 1000
PLAIN = Style(punctuated=False, filler_words=False, with_languages=False)
WRITTEN = replace(PLAIN, punctuated=True)
FILLED = replace(PLAIN, filler_words=True)
QUIET = Manner(PLAIN, interim_results=False, vad_events=False, endpointing=None, utterance_end=None)
CHATTY = Manner(
    PLAIN,
    interim_results=True,
    vad_events=True,
    endpointing=10 * MS,
    utterance_end=1000 * MS,
)


def word(text: str, start_s: float, end_s: float, probability: float = 1.0) -> Word:
    return Word(text, round(start_s * RATE), round(end_s * RATE), probability)


class Stage:
    """A transcript and its view, and what happens in the order in which it does."""

    def __init__(self, manner: Manner = CHATTY) -> None:
        self.transcript = Transcript()
        self.view = View(
            self.transcript, manner, language_code="en", channel=(0, 1), metadata={"x": 1}
        )

    def receives(self, to_s: float) -> None:
        self.transcript.received_sample = round(to_s * RATE)
        self.transcript.decoded_sample = round(to_s * RATE)

    def starts(self, at_s: float) -> None:
        self.transcript.start_speech(round(at_s * RATE))

    def ends(self, at_s: float, *, settled_s: float) -> None:
        self.transcript.end_speech(round(at_s * RATE))
        self.settles(settled_s)

    def settles(self, to_s: float) -> None:
        self.transcript.settle(round(to_s * RATE))

    def commits(self, *words: Word, tail: Sequence[Word] = (), heard_s: float = 0) -> None:
        self.transcript.commit(words)
        self.transcript.replace_tail(tail, round(heard_s * RATE))

    def hears(self, *tail: Word, heard_s: float = 0) -> None:
        self.transcript.replace_tail(tail, round(heard_s * RATE))

    def told(self) -> list[str]:
        return [brief(message) for message in self.view.news()]


def brief(message: dict[str, Any]) -> str:
    """A message in a few letters."""
    match message["type"]:
        case "SpeechStarted":
            return f"started {message['timestamp']:g}"
        case "UtteranceEnd":
            return f"utterance ends {message['last_word_end']:g}"
    end = message["start"] + message["duration"]
    kind = "final" if message["is_final"] else "interim"
    marks = "!" * message["speech_final"] + "f" * message["from_finalize"]
    return f"{kind}{marks} {message['start']:g}-{end:g} {text_of(message)}".strip()


def test_an_utterance_from_its_start_to_its_end() -> None:
    stage = Stage()
    assert stage.told() == []
    stage.starts(1)
    assert stage.told() == ["started 1"]
    stage.hears(word(" Hello", 1.1, 1.5), heard_s=1.6)
    assert stage.told() == ["interim 0-1.6 hello"]
    stage.commits(word(" Hello,", 1.1, 1.5), tail=[word(" you.", 1.6, 2)], heard_s=2.2)
    assert stage.told() == ["interim 0-2.2 hello you"]
    stage.commits(word(" you.", 1.6, 2), heard_s=2.4)
    assert stage.told() == []
    stage.ends(2.1, settled_s=2.6)
    assert stage.told() == ["final! 0-2.11 hello you"]
    stage.settles(2.9)
    assert not stage.view.due()
    stage.settles(3.0)
    assert stage.view.due()
    assert stage.told() == ["utterance ends 2"]
    stage.settles(6)
    assert stage.told() == []
    stage.settles(8)
    assert stage.told() == ["final 2.11-8"]


def test_nothing_but_finals_is_told_who_asks_for_nothing_else() -> None:
    stage = Stage(QUIET)
    stage.starts(1)
    stage.hears(word(" Hello", 1.1, 1.5), heard_s=1.6)
    assert stage.told() == []
    stage.commits(word(" Hello", 1.1, 1.5), heard_s=2)
    stage.ends(1.6, settled_s=2)
    assert stage.told() == []
    stage.settles(2.5)
    assert stage.told() == ["final 0-1.5 hello"]


def test_long_speech_is_final_before_it_ends() -> None:
    stage = Stage(replace(QUIET, interim_results=True))
    stage.starts(0)
    stage.commits(word(" one", 0.1, 2), heard_s=2.5)
    assert stage.told() == ["interim 0-2.5 one"]
    stage.commits(word(" two", 2.1, 3.2), tail=[word(" three", 3.3, 3.5)], heard_s=3.6)
    assert stage.told() == ["final 0-3.2 one two", "interim 3.2-3.6 three"]


def test_long_speech_before_a_pause_is_final_when_the_utterance_ends() -> None:
    stage = Stage(replace(QUIET, endpointing=10 * MS))
    stage.starts(0)
    stage.commits(word(" one", 0.1, 3.5), heard_s=3.9)
    assert stage.told() == []
    stage.ends(3.6, settled_s=4.2)
    assert stage.told() == ["final! 0-3.61 one"]


def test_a_pause_that_is_too_short_ends_no_utterance() -> None:
    stage = Stage(replace(CHATTY, endpointing=2000 * MS, utterance_end=None))
    stage.starts(0)
    stage.commits(word(" one", 0.1, 0.5), heard_s=0.6)
    stage.ends(0.6, settled_s=1.4)
    assert stage.told() == ["started 0", "interim 0-1.4 one"]
    stage.starts(2)
    assert stage.told() == ["started 2"]
    stage.commits(word(" two", 2.1, 2.5), heard_s=2.6)
    stage.ends(2.6, settled_s=4.5)
    assert stage.told() == ["final 0-2.5 one two"]
    stage.settles(4.6)
    assert stage.told() == ["final! 2.5-4.6"]


def test_a_slow_reader_gets_each_utterance_by_itself() -> None:
    stage = Stage()
    for number in range(3):
        at = 10.0 * number
        stage.starts(at)
        stage.commits(word(f" w{number}", at + 0.1, at + 0.5), heard_s=at + 0.6)
        stage.ends(at + 0.6, settled_s=at + 1.4)
    assert stage.told() == [
        *("started 0", "final! 0-0.61 w0", "utterance ends 0.5"),
        *("started 10", "final! 0.61-10.61 w1", "utterance ends 10.5"),
        *("started 20", "final! 10.61-20.61 w2"),
    ]


def test_noise_that_goes_on_does_not_hide_the_end_of_an_utterance() -> None:
    stage = Stage(replace(CHATTY, interim_results=False))
    stage.starts(0)
    stage.commits(word(" one", 0.1, 0.5), heard_s=1.4)
    assert stage.told() == ["started 0"]
    stage.hears(heard_s=1.6)
    assert stage.view.due()
    assert stage.told() == ["final 0-0.5 one", "utterance ends 0.5"]


def test_an_utterance_does_not_end_before_it_is_known_what_follows_a_word() -> None:
    stage = Stage(replace(CHATTY, interim_results=True))
    stage.starts(0)
    stage.hears(word(" one", 0.1, 0.5), word(" two", 1, 1.4), heard_s=2)
    stage.transcript.commit([word(" one", 0.1, 0.5)])
    assert stage.told() == ["started 0"]
    stage.hears(word(" two", 1, 1.4), heard_s=2)
    assert stage.told() == ["interim 0-2 one two"]


def test_finalize_is_answered_with_what_is_there_and_again_with_nothing() -> None:
    stage = Stage()
    stage.starts(0)
    stage.hears(word(" one", 0.1, 0.5), heard_s=1)
    stage.view.waits = True
    stage.commits(word(" one", 0.1, 0.5), heard_s=1)
    stage.receives(1)
    stage.settles(1)
    assert stage.told() == []
    assert not stage.view.due()
    answers = [brief(message) for _ in range(2) for message in stage.view.finalized()]
    assert answers == ["started 0", "final!f 0-1 one", "finalf 1-1"]
    stage.view.waits = False
    stage.commits(word(" two", 1.2, 1.6), heard_s=1.8)
    stage.ends(1.7, settled_s=2)
    assert stage.told() == ["final! 1-1.71 two"]


def test_what_is_far_behind_is_told_though_a_command_waits() -> None:
    stage = Stage(QUIET)
    stage.view.waits = True
    stage.transcript.received_sample = 60 * RATE
    stage.commits(word(" one", 0.1, 3.5), tail=[word(" two", 3.6, 3.9)], heard_s=4)
    assert stage.told() == ["final 0-3.5 one"]


def test_the_end_is_one_final() -> None:
    stage = Stage(replace(CHATTY, utterance_end=None))
    stage.starts(0)
    stage.commits(word(" one", 0.1, 0.5))
    stage.receives(2)
    stage.transcript.finish()
    assert [brief(message) for message in stage.view.last()] == ["started 0", "final! 0-2 one"]


def test_the_end_of_nothing_is_nothing() -> None:
    stage = Stage()
    stage.transcript.finish()
    assert stage.view.last() == []


@pytest.mark.parametrize(
    ("style", "language", "transcript", "words"),
    [
        (PLAIN, "en", "it's 5% yes", ["it's", "5%", "yes"]),
        (WRITTEN, "en", "“It's” 5%, — Yes!", ["“It's”", "5%,", "Yes!"]),
        (PLAIN, "de", "it's um 5% yes", ["it's", "um", "5%", "yes"]),
        (FILLED, "en", "it's um 5% yes", ["it's", "um", "5%", "yes"]),
    ],
)
def test_words_are_written_as_the_client_wants_them(
    style: Style, language: str, transcript: str, words: list[str]
) -> None:
    texts = (" “It's”", " Um,", " 5%,", " —", " Yes!")
    said = [word(text, at, at + 1, 0.5) for at, text in enumerate(texts)]
    body = alternative(said, language, style)
    key = "punctuated_word" if style.punctuated else "word"
    assert [told[key] for told in body["words"]] == words
    assert body["transcript"] == transcript
    assert body["confidence"] == 0.5
    assert all(("punctuated_word" in told) is style.punctuated for told in body["words"])


@pytest.mark.trap(7)
def test_languages_are_told_in_codes_that_are_known_everywhere() -> None:
    style = replace(PLAIN, with_languages=True)
    body = alternative([word(" a", 0, 1)], "jw", style)
    assert body["languages"] == ["jv"]
    assert body["words"][0]["language"] == "jv"
    assert "languages" not in alternative([word(" a", 0, 1)], "", style)


moves = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "commit", "tail", "settle", "read", "finalize", "waits"]),
        st.integers(1, 4 * RATE),
    ),
    max_size=60,
)


@given(moves, st.sampled_from([None, 10 * MS, 2000 * MS]), st.sampled_from([None, 1000 * MS]))
def test_whatever_happens_every_word_is_final_once_and_finals_tile(
    history: list[tuple[str, int]], endpointing: int | None, utterance_end: int | None
) -> None:
    stage = Stage(replace(CHATTY, endpointing=endpointing, utterance_end=utterance_end))
    transcript, view = stage.transcript, stage.view
    messages = []
    at = 0
    for kind, length in history:
        at += length
        transcript.received_sample = transcript.decoded_sample = at
        match kind:
            case "start" if not transcript.speech or transcript.speech[-1].end_sample is not None:
                transcript.start_speech(at - length // 2)
            case "end":
                transcript.end_speech(at)
            case "commit":
                number = len(transcript.words)
                transcript.commit([Word(f" w{number}", at - length, at - length // 2)])
            case "tail":
                transcript.replace_tail([Word(" t", at - length // 2, at)], at)
            case "settle":
                transcript.replace_tail((), at)
                transcript.settle(at)
            case "finalize":
                transcript.replace_tail((), at)
                transcript.settle(at)
                messages += view.finalized()
            case "waits":
                view.waits = not view.waits
            case "read":
                messages += view.news()
                assert not view.due()
    transcript.finish()
    messages += view.last()
    results = [message for message in messages if message["type"] == "Results"]
    finals = [message for message in results if message["is_final"]]
    for result in results:
        assert not result["speech_final"] or result["is_final"]
    said = " ".join(filter(None, map(text_of, finals)))
    assert said == " ".join(f"w{number}" for number in range(len(transcript.words)))
    for before, after in pairwise(finals):
        assert after["start"] == pytest.approx(before["start"] + before["duration"], abs=1e-4)
    if finals:
        assert finals[0]["start"] == 0
        end = finals[-1]["start"] + finals[-1]["duration"]
        assert end == pytest.approx(at / RATE, abs=1e-4)
    heard = sum(message["type"] == "SpeechStarted" for message in messages)
    assert heard == len(transcript.speech)
