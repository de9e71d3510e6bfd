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
SEGMENT = "conversation.item.input_audio_transcription.segment"
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


@given(
    history=st.lists(
        st.tuples(st.integers(1, 4), st.lists(st.integers(1, 3), min_size=4, max_size=4)),
        max_size=5,
    ),
    each=st.booleans(),
)
def test_every_word_is_in_a_segment_of_its_item_and_its_speaker(
    history: list[tuple[int, list[int]]], each: bool
) -> None:
    transcript, items = Transcript(), Items(beta=False)
    items.with_speakers = True
    items.attach(transcript, 0)
    told: list[Message] = []
    said: list[Word] = []
    at = RATE
    for count, speakers in history:
        transcript.start_speech(at)
        for index in range(count):
            start = at + index * RATE // 2
            mark = "." * (index % 2)
            said.append(Word(f" W{start}{mark}", start, start + 4000, speaker=speakers[index]))
            transcript.commit(said[-1:])
            if each:
                told += items.news()
        end = at + count * RATE // 2
        transcript.end_speech(end)
        transcript.decide(end)
        told += items.news()
        at = end + 3 * RATE
    transcript.received_sample = at
    transcript.finish()
    told += items.detach()
    check(told, said)
    segments = of(told, SEGMENT)
    assert " ".join(segment["text"] for segment in segments) == text_of(said).strip()
    labels = {word.text.strip(): word.speaker for word in said}
    for segment in segments:
        assert len({labels[text] for text in segment["text"].split()}) == 1
    named: dict[str, int] = {}
    for segment in segments:
        speaker = labels[segment["text"].split()[0]]
        assert named.setdefault(segment["speaker"], speaker) == speaker
    assert list(named) == [*"ABC"][: len(named)]
    assert len({segment["id"] for segment in segments}) == len(segments)
    for item in of(told, COMPLETED):
        mine = [event for event in told if event.get("item_id") == item["item_id"]]
        texts = [segment["text"] for segment in of(mine, SEGMENT)]
        assert " ".join(texts) == item["transcript"]
        assert mine[-1] == item


def test_segments_are_told_when_they_have_ended_on_the_clock_of_the_connection() -> None:
    items = Items(beta=False)
    items.with_speakers = True
    found: list[list[tuple[str, str, float, float]]] = []
    for base in (0, 10 * RATE):
        transcript = Transcript()
        items.attach(transcript, base)
        transcript.start_speech(0)
        words = [
            Word(" Are", 0, 4000, speaker=1),
            Word(" you?", 4000, 8000, speaker=1),
            Word(" Yes.", 16_000, 20_000, speaker=2),
        ]
        transcript.commit(words[:2])
        told = [*items.news()]
        transcript.commit(words[2:])
        told += [*items.news(), {"type": "end of turn"}]
        transcript.end_speech(2 * RATE)
        transcript.decide(2 * RATE)
        told += items.news()
        kinds = [m["type"] for m in told if m["type"] in {DELTA, SEGMENT, COMPLETED, "end of turn"}]
        assert kinds == [DELTA, DELTA, SEGMENT, "end of turn", SEGMENT, COMPLETED]
        fields = ("text", "speaker", "start", "end")
        found.append([tuple(m[field] for field in fields) for m in of(told, SEGMENT)])
    assert found == [
        [("Are you?", "A", 0.0, 0.5), ("Yes.", "B", 1.0, 1.25)],
        [("Are you?", "C", 10.0, 10.5), ("Yes.", "D", 11.0, 11.25)],
    ]


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
