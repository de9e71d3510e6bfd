"""What items a client is told of, given what is known of a transcript."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from services.common.words import Word, text_of
from services.gateway.protocols.realtime_view import Items, Message
from services.gateway.protocols.realtime_wish import TurnDetection
from services.gateway.transcript import Transcript

RATE = 16_000
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
LIFE = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    COMPLETED,
]

turns = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from(["all", "each", "late"])),
    max_size=6,
)
"""For each turn: its words, the pause behind it in seconds, and how soon they are known."""


def of(told: list[Message], kind: str) -> list[Message]:
    return [message for message in told if message["type"] == kind]


def check(told: list[Message], words: list[Word]) -> None:
    """Every word once and in order; each item's deltas together, and together its transcript."""
    completed = of(told, COMPLETED)
    assert len({item["item_id"] for item in completed}) == len(completed)
    deltas = of(told, DELTA)
    runs = [(item_id, list(run)) for item_id, run in groupby(deltas, lambda d: d["item_id"])]
    texts = {item_id: "".join(delta["delta"] for delta in run) for item_id, run in runs}
    assert len(texts) == len(runs)
    for item in completed:
        assert texts.get(item["item_id"], "") == item["transcript"]
    assert " ".join(texts.values()) == text_of(words).strip()
    order = [item["item_id"] for item in of(told, "input_audio_buffer.committed")]
    assert [item["item_id"] for item in completed] == order
    befores = [item["previous_item_id"] for item in of(told, "input_audio_buffer.committed")]
    assert befores == [None, *order][: len(befores)]


@given(history=turns)
def test_every_turn_is_an_item_with_its_words_however_late_they_come(
    history: list[tuple[int, int, str]],
) -> None:
    """W1."""
    transcript, items = Transcript(), Items(beta=False)
    items.attach(transcript, 0)
    told: list[Message] = []
    waiting: list[Word] = []
    said: list[list[Word]] = []
    at = RATE
    for count, pause_s, known in history:
        transcript.start_speech(at)
        words = [
            Word(f" w{at + i * RATE}", at + i * RATE, at + i * RATE + 8000) for i in range(count)
        ]
        said.append(words)
        waiting += words
        if known == "each":
            for word in waiting:
                transcript.commit([word])
                told += items.news()
            waiting = []
        end = at + count * RATE
        transcript.end_speech(end)
        if known != "late":
            transcript.commit(waiting)
            transcript.decide(end + 3200)
            waiting = []
        told += items.news()
        at = end + pause_s * RATE
    transcript.commit(waiting)
    transcript.received_sample = at
    transcript.finish()
    told += items.detach()
    check(told, list(transcript.words))
    transcripts = [item["transcript"] for item in of(told, COMPLETED)]
    assert transcripts == [text_of(words).strip() for words in said]
    for item in of(told, COMPLETED):
        life = [
            m["type"]
            for m in told
            if item["item_id"] in (m.get("item_id"), m.get("item", {}).get("id"))
        ]
        assert [kind for kind in life if kind != DELTA] == LIFE


@given(commits=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=8))
def test_every_commit_is_an_item_with_what_was_said_since_the_one_before(
    commits: list[tuple[int, bool, bool]],
) -> None:
    transcript, items = Transcript(), Items(beta=False)
    items.turns = None
    items.attach(transcript, 0)
    told: list[Message] = []
    kept: list[list[Word]] = []
    at = 0
    for count, early, clear in commits:
        words = [Word(f" w{at + i}", at + i, at + i + 1) for i in range(count)]
        at += RATE
        if early and not clear:
            transcript.commit(words)
            told += items.news()
        if clear:
            told += items.discard(at)
            transcript.commit(words)
            told += items.news()
            told += items.go_on()
            continue
        if not early:
            transcript.commit(words)
        told += items.commit(at)
        kept.append(words)
    transcripts = [item["transcript"] for item in of(told, COMPLETED)]
    assert transcripts == [text_of(words).strip() for words in kept]
    assert sum(item["usage"]["seconds"] for item in of(told, COMPLETED)) == len(kept)


def test_words_that_come_after_their_turn_are_not_lost() -> None:
    transcript, items = Transcript(), Items(beta=False)
    items.attach(transcript, RATE)
    transcript.start_speech(1000)
    transcript.end_speech(9000)
    transcript.decide(9000)
    told = [*items.news()]
    assert of(told, COMPLETED)[0]["transcript"] == ""
    transcript.commit([Word(" late", 5000, 6000)])
    transcript.finish()
    told += [*items.news(), *items.detach()]
    assert [item["transcript"] for item in of(told, COMPLETED)] == ["", "late"]


def test_positions_are_those_of_the_connection() -> None:
    items = Items(beta=False)
    items.turns = TurnDetection(prefix_padding_ms=100)
    told: list[Message] = []
    for base in (0, 10 * RATE):
        transcript = Transcript()
        items.attach(transcript, base)
        transcript.start_speech(RATE)
        transcript.end_speech(2 * RATE)
        transcript.received_sample = 3 * RATE
        transcript.finish()
        told += items.detach()
    assert [m["audio_start_ms"] for m in of(told, LIFE[0])] == [900, 10_900]
    assert [m["audio_end_ms"] for m in of(told, LIFE[1])] == [2000, 12_000]
    assert [item["usage"]["seconds"] for item in of(told, COMPLETED)] == [1.1, 1.1]
