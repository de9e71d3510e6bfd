"""The checker finds what is not as promised."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.robustness.history import History, Told, violations
from voxmesh.gateway.v1 import gateway_pb2 as pb

UNDISTURBED = ["a", "b", "c"]
Messages = list[pb.ConverseResponse]


def captions(first_word: int, *texts: str) -> pb.ConverseResponse:
    """Words that start a second apart, as many seconds in as their numbers say."""
    words = []
    for number, text in enumerate(texts, first_word):
        start = Duration()
        start.FromTimedelta(timedelta(seconds=number))
        words.append(pb.Word(text=text, start_offset=start))
    return pb.ConverseResponse(captions=pb.Captions(first_word=first_word, words=words))


FINISHED = pb.ConverseResponse(finished=pb.Finished())


def judged(messages: Sequence[pb.ConverseResponse]) -> list[str]:
    history = History([Told(0.0, message) for message in messages])
    return [violation.partition(":")[0] for violation in violations(history, UNDISTURBED)]


def test_what_is_as_promised_is_no_violation() -> None:
    assert judged([captions(0, "a"), captions(1), captions(1, "b", "c"), FINISHED]) == []


@pytest.mark.parametrize(
    ("messages", "clauses"),
    [
        ([captions(0, "a"), captions(2, "c"), FINISHED], ["W1", "F1"]),
        ([captions(0, "a", "b"), captions(1, "b", "c"), FINISHED], ["W1", "F1"]),
        ([captions(0, "a", "c", "b"), FINISHED], ["F1"]),
        ([captions(0, "a", "b", "x"), FINISHED], ["F1"]),
        ([captions(0, "a", "b", "c")], ["W2"]),
        ([captions(0, "a", "b", "c"), FINISHED, FINISHED], ["W2"]),
        ([captions(0, "a"), FINISHED, captions(1, "b", "c")], ["W2"]),
    ],
)
def test_what_is_not_is_found(messages: Messages, clauses: list[str]) -> None:
    assert judged(messages) == clauses


def spoken(*speakers: int) -> pb.ConverseResponse:
    """The words, and who says them."""
    message = captions(0, *UNDISTURBED)
    for word, speaker in zip(message.captions.words, speakers, strict=True):
        word.speaker = speaker
    return message


def lost(*, retryable: bool) -> pb.ConverseResponse:
    return pb.ConverseResponse(notice=pb.Notice(stage="diarizer", retryable=retryable))


@pytest.mark.parametrize(
    ("messages", "clauses"),
    [
        ([spoken(1, 2, 1)], []),
        ([spoken(1, 2, 2)], ["F8"]),
        ([lost(retryable=True), spoken(1, 1, 1)], ["F8"]),
        ([lost(retryable=False), spoken(1, 1, 1)], []),
        ([spoken(2, 1, 2), lost(retryable=False)], ["F8"]),
    ],
)
def test_speakers_who_change_are_found_unless_they_are_given_up(
    messages: Messages, clauses: list[str]
) -> None:
    history = History([Told(0.0, message) for message in (*messages, FINISHED)])
    found = violations(history, UNDISTURBED, (1, 2, 1))
    assert [violation.partition(":")[0] for violation in found] == clauses


def translated(*pieces: tuple[str, int, int]) -> pb.ConverseResponse:
    """Pieces of a translation: text, first word, and the one behind the last."""
    told = pb.Translated(language_code="pt")
    for text, first, end in pieces:
        piece = told.pieces.add(text=text)
        piece.start_offset.FromSeconds(first)
        piece.end_offset.FromSeconds(end)
    return pb.ConverseResponse(translated=told)


GIVEN_UP = pb.ConverseResponse(notice=pb.Notice(stage="translator", retryable=False))


@pytest.mark.parametrize(
    ("messages", "clauses"),
    [
        ([translated((" A B", 0, 2), (" C", 2, 3))], []),
        ([translated((" A B", 0, 2))], ["F9", "F9"]),
        ([translated((" A B", 0, 2)), GIVEN_UP], []),
        ([translated((" A B C", 0, 3), (" C", 2, 3))], ["F9", "F9"]),
        ([translated((" A", 0, 1), (" B C", 2, 3))], ["F9"]),
        ([translated((" C", 2, 3), (" A B", 0, 2))], ["F9"]),
    ],
)
def test_words_that_are_not_translated_once_are_found(
    messages: Messages, clauses: list[str]
) -> None:
    words = captions(0, " a", " b", " c")
    for word in words.captions.words:
        word.end_offset.FromTimedelta(word.start_offset.ToTimedelta() + timedelta(seconds=1))
    history = History([Told(0.0, message) for message in (words, *messages, FINISHED)])
    found = violations(history, [" a", " b", " c"], translated=True)
    assert [violation.partition(":")[0] for violation in found] == clauses


def test_words_that_go_back_in_time_are_found() -> None:
    later, earlier = captions(5, "a"), captions(1, "b", "c")
    later.captions.first_word = 0
    assert judged([later, earlier, FINISHED]) == ["W1"]
