import pytest

from services.common.words import Word
from services.gateway.transcript import Decoding, Notice, Scores, Speech, Transcript

ONE, TWO, THREE = (Word(f" {i}", 100 * i, 100 * i + 50) for i in range(3))


def test_a_commit_takes_the_place_of_the_tail() -> None:
    """W3."""
    transcript = Transcript()
    transcript.replace_tail([ONE, TWO])
    transcript.commit([ONE], Scores(avg_log_probability=-0.2, temperature=0.4))
    assert list(transcript.words) == [ONE]
    assert transcript.tail == ()
    transcript.commit([TWO, THREE])
    assert list(transcript.decodings) == [
        Decoding(0, 1, -0.2, 0.0, 0.4),
        Decoding(1, 2, 0.0, 0.0, 0.0),
    ]


def test_behind_a_commit_the_tail_is_unknown_until_it_is_told() -> None:
    transcript = Transcript()
    transcript.commit([ONE])
    assert not transcript.tail_known
    transcript.replace_tail([])
    assert transcript.tail_known
    transcript.commit([TWO])
    transcript.finish()
    assert transcript.tail_known


def test_only_news_is_a_revision() -> None:
    """P17: readers compare revisions, so every change is one, and nothing else is."""
    transcript = Transcript()
    transcript.replace_tail([])
    assert transcript.revision == 0
    transcript.replace_tail([ONE])
    transcript.replace_tail([ONE])
    assert transcript.revision == 1
    transcript.detect("en", 0.9)
    transcript.detect("en", 0.9)
    assert transcript.revision == 2
    transcript.notify(Notice("asr", "DEGRADED", "lost", retryable=True))
    assert transcript.revision == 3
    transcript.received_sample = 500
    transcript.decoded_sample = 300
    assert transcript.revision == 3
    transcript.finish()
    assert transcript.revision == 4


def test_speech_and_decisions_are_news_once() -> None:
    transcript = Transcript()
    transcript.end_speech(50)
    assert transcript.revision == 0
    transcript.start_speech(100)
    transcript.end_speech(300)
    transcript.end_speech(400)
    assert transcript.speech == [Speech(100, 300)]
    assert transcript.revision == 2
    transcript.decide(500)
    transcript.decide(400)
    assert (transcript.decided_sample, transcript.revision) == (500, 3)


def test_the_end_is_the_end_of_speech_and_decides_everything() -> None:
    transcript = Transcript()
    transcript.start_speech(100)
    transcript.received_sample = 1000
    transcript.finish()
    assert transcript.speech == [Speech(100, 1000)]
    assert transcript.decided_sample == 1000


def test_what_was_read_stays_as_it_was() -> None:
    transcript = Transcript()
    transcript.replace_tail([ONE, TWO])
    tail = transcript.tail
    transcript.replace_tail([TWO])
    assert tail == (ONE, TWO)


def test_what_can_still_change_begins_with_the_tail() -> None:
    transcript = Transcript()
    transcript.received_sample = 1000
    transcript.decoded_sample = 900
    assert transcript.committed_sample == 900
    transcript.replace_tail([TWO])
    assert transcript.committed_sample == TWO.first_sample
    transcript.finish()
    assert transcript.committed_sample == 1000


def test_speech_is_told_from_its_start_to_its_end() -> None:
    transcript = Transcript()
    transcript.end_speech(50)
    transcript.start_speech(100)
    assert transcript.speech == [Speech(100, None)]
    transcript.end_speech(200)
    transcript.end_speech(300)
    transcript.start_speech(400)
    transcript.received_sample = 500
    transcript.finish()
    assert transcript.speech == [Speech(100, 200), Speech(400, 500)]


def test_after_a_commit_the_tail_is_not_known_until_it_is_said() -> None:
    transcript = Transcript()
    transcript.replace_tail([ONE, TWO], 150)
    transcript.commit([ONE])
    assert not transcript.tail_known
    revision = transcript.revision
    transcript.replace_tail([], 150)
    assert transcript.tail_known
    assert transcript.revision == revision + 1
    assert transcript.heard_sample == 150
    transcript.settle(200)
    assert (transcript.settled_sample, transcript.heard_sample) == (200, 200)
    transcript.settle(100)
    assert transcript.settled_sample == 200


@pytest.mark.parametrize(
    ("notices", "lacking"),
    [
        ([], False),
        ([("diarizer", "DEGRADED")], True),
        ([("diarizer", "DEGRADED"), ("asr", "RECOVERED")], True),
        ([("diarizer", "DEGRADED"), ("diarizer", "RECOVERED")], False),
        ([("asr", "DEGRADED")], False),
    ],
)
def test_a_stage_is_lacking_that_was_in_trouble_in_the_end(
    notices: list[tuple[str, str]], lacking: bool
) -> None:
    transcript = Transcript()
    for stage, code in notices:
        transcript.notify(Notice(stage, code, "", retryable=True))
    assert transcript.lacks("diarizer") is lacking
