"""A transcript as the items of ``/v1/realtime``: one for each turn, or for each commit.

What a client is told of an item is only ever added to: its deltas, one after the other, are its
transcript. The deltas of an item come before those of the next one. Who wants to know who speaks is
told of each segment of an item when it has ended, behind its deltas.
"""

import math
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from services.common.timeline import SAMPLE_RATE_HZ, samples_of_ms, seconds
from services.common.words import Word, text_of
from services.gateway.protocols.openai_diarized import Labels
from services.gateway.protocols.openai_view import span
from services.gateway.protocols.realtime_wish import TurnDetection
from services.gateway.segments import segments
from services.gateway.transcript import Transcript

Message: TypeAlias = dict[str, Any]

SHORTEST_COMMIT_SAMPLES = samples_of_ms(100)
"""A client cannot commit less audio."""

_ITEM = "conversation.item"
_TRANSCRIPTION = f"{_ITEM}.input_audio_transcription"


@dataclass(slots=True)
class Item:
    """A stretch of audio and what was said in it. Positions are those of the connection."""

    first_sample: int
    id: str = field(default_factory=lambda: f"item_{uuid.uuid4().hex[:24]}")
    end_sample: int = 0
    transcript: str = ""
    logprobs: list[Message] = field(default_factory=list)
    """Of its words, if the client wants to know."""
    segment: list[Word] = field(default_factory=list)
    """The words of the segment that may go on, likewise."""
    span: int | None = None
    """Index of its speech in the transcript; None: the client has committed it."""
    decided: bool = False
    """Whether no word can be added any more."""


class Items:
    """What one client has been told of its items. Methods return what to tell it next.

    A connection may have several transcripts, one after the other: each has a clock of its own, and
    ``base_sample`` of the connection's is where it starts.
    """

    def __init__(self, *, beta: bool) -> None:
        """Create the view of a client that has been told nothing.

        Args:
            beta: Whether it expects the item events of the beta.

        """
        self.turns: TurnDetection | None = TurnDetection()
        """When turns end by themselves; None: the client ends them."""
        self.with_logprobs = False
        self.with_speakers = False
        self._item_events = ("created",) if beta else ("added", "done")
        self._labels = Labels()
        self._num_segments = 0
        self._transcript = Transcript()
        self._base = 0
        self._num_words = 0
        self._span = 0
        """Index of the first speech whose end has not been looked at."""
        self._speaking = False
        """Whether the start of that speech has been looked at."""
        self._discarding = False
        self._open: Item | None = None
        self._closed: deque[Item] = deque()
        """Items that end before what is said now, and whose words may not all be there yet."""
        self._previous_id: str | None = None
        self.boundary_sample = 0
        """Where the audio starts that belongs to no item yet."""

    def attach(self, transcript: Transcript, base_sample: int) -> None:
        """Go on with another transcript, which starts here."""
        self._transcript = transcript
        # Its speakers are counted anew, and nobody knows who is whom.
        self._labels.forget_speakers()
        self._base = base_sample
        self._num_words = 0
        self._span = 0
        self._speaking = False

    def news(self) -> Iterator[Message]:
        """What has changed in the transcript."""
        yield from self._edges()
        yield from self._words()

    def commit(self, position: int) -> Iterator[Message]:
        """The client has ended an item here, and everything before is decided."""
        yield from self._decided()
        self._open = self._open or Item(self.boundary_sample)
        self._open.span = None
        yield from self._close(position)
        yield from self._decided()
        yield from self._go_on(position)

    def discard(self, position: int) -> Iterator[Message]:
        """Forget what belongs to no item yet, up to here, until ``go_on``."""
        yield from self.news()
        self._open = None
        self._discarding = True
        self.boundary_sample = position
        yield {"type": "input_audio_buffer.cleared"}

    def go_on(self) -> Iterator[Message]:
        """Everything that is discarded is in the transcript."""
        yield from self._decided()
        self._discarding = False
        self._num_words = len(self._transcript.words)
        yield from self._go_on(self.boundary_sample)

    def detach(self) -> Iterator[Message]:
        """The transcript is finished, and another one may follow."""
        yield from self._decided()
        if self._num_words < len(self._transcript.words) and self._open is None:
            self._open = Item(self.boundary_sample)
            yield from self._close(max(self.boundary_sample, self._end_of_words()))
            yield from self._decided()

    def failed(self, error: Message) -> Iterator[Message]:
        """The items that are not complete never will be."""
        for item in (*self._closed, *([self._open] if self._open else [])):
            told = {"item_id": item.id, "content_index": 0, "error": error}
            yield {"type": f"{_TRANSCRIPTION}.failed", **told}

    def _decided(self) -> Iterator[Message]:
        """Everything that was said before is in the transcript."""
        yield from self._edges()
        for item in self._closed:
            item.decided = True
        yield from self._words()

    def _edges(self) -> Iterator[Message]:
        speech = self._transcript.speech
        while self._span < len(speech):
            if not self._speaking:
                self._speaking = True
                yield from self._started(self._base + speech[self._span].first_sample)
            if (end_sample := speech[self._span].end_sample) is None:
                return
            yield from self._stopped(self._base + end_sample)
            self._speaking = False
            self._span += 1

    def _started(self, position: int) -> Iterator[Message]:
        if self.turns is None or self._discarding:
            return
        padded = position - samples_of_ms(self.turns.prefix_padding_ms)
        self._open = self._open or Item(max(self.boundary_sample, padded))
        self._open.span = self._span
        yield {
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": _ms(self._open.first_sample),
            "item_id": self._open.id,
        }

    def _stopped(self, position: int) -> Iterator[Message]:
        if self.turns is None or self._open is None:
            return
        yield {
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": _ms(position),
            "item_id": self._open.id,
        }
        yield from self._close(position)

    def _go_on(self, position: int) -> Iterator[Message]:
        """Who still speaks behind a cut speaks in a new item."""
        if self._speaking:
            yield from self._started(position)

    def _close(self, position: int) -> Iterator[Message]:
        item = self._open
        assert item is not None
        self._open = None
        item.end_sample = self.boundary_sample = max(position, item.first_sample)
        self._closed.append(item)
        before, self._previous_id = self._previous_id, item.id
        told = {"item_id": item.id, "previous_item_id": before}
        yield {"type": "input_audio_buffer.committed", **told}
        content = {"type": "input_audio", "transcript": None}
        for event in self._item_events:
            yield {
                "type": f"{_ITEM}.{event}",
                "previous_item_id": before,
                "item": {
                    "id": item.id,
                    "object": "realtime.item",
                    "type": "message",
                    "status": "completed",
                    "role": "user",
                    "content": [content],
                },
            }

    def _words(self) -> Iterator[Message]:
        while self._closed:
            item = self._closed[0]
            yield from self._grow(item, self._limit_of(item))
            if not self._is_decided(item):
                return
            self._closed.popleft()
            yield from self._segments(item, over=True)
            yield self._completed(item)
        if self._discarding or self._num_words == len(self._transcript.words):
            return
        if self._open is None and self.turns is None:
            self._open = Item(self.boundary_sample)
        if self._open is not None:
            yield from self._grow(self._open, math.inf)

    def _is_decided(self, item: Item) -> bool:
        if item.decided or item.span is None:
            return item.decided
        return self._base + self._transcript.decided_sample >= item.end_sample

    def _limit_of(self, item: Item) -> float:
        """Position in the transcript from which on words belong to the next item."""
        speech = self._transcript.speech
        if item.span is None or item.span + 1 >= len(speech):
            return math.inf
        return (item.end_sample - self._base + speech[item.span + 1].first_sample) / 2

    def _grow(self, item: Item, limit: float) -> Iterator[Message]:
        words = self._transcript.words
        first = self._num_words
        while self._num_words < len(words) and _middle(words[self._num_words]) < limit:
            self._num_words += 1
        added = words[first : self._num_words]
        texts = [word.text for word in added]
        if texts and not item.transcript:
            texts[0] = texts[0].lstrip()
        if not (delta := "".join(texts)):
            return
        item.transcript += delta
        told: Message = {"item_id": item.id, "content_index": 0, "delta": delta}
        if self.with_logprobs:
            told["logprobs"] = _logprobs(texts, added)
            item.logprobs += told["logprobs"]
        yield {"type": f"{_TRANSCRIPTION}.delta", **told}
        if self.with_speakers:
            item.segment += added
            yield from self._segments(item, over=False)

    def _segments(self, item: Item, *, over: bool) -> Iterator[Message]:
        """Those that have ended; all of them, if the item is over."""
        words = item.segment
        for part in segments(words):
            if part.end_word == len(words) and not over:
                item.segment = words[part.first_word :]
                return
            yield self._segment(item, words[part.first_word : part.end_word])
        item.segment = []

    def _segment(self, item: Item, words: Sequence[Word]) -> Message:
        self._num_segments += 1
        return {
            "type": f"{_TRANSCRIPTION}.segment",
            "id": f"seg_{self._num_segments:03}",
            "item_id": item.id,
            "content_index": 0,
            "text": text_of(words).strip(),
            "speaker": self._labels.of(words[0].speaker),
            **span(math.inf, self._base + words[0].first_sample, self._base + words[-1].end_sample),
        }

    def _completed(self, item: Item) -> Message:
        told: Message = {
            "type": f"{_TRANSCRIPTION}.completed",
            "item_id": item.id,
            "content_index": 0,
            "transcript": item.transcript,
            "usage": usage(item.end_sample - item.first_sample),
        }
        if self._transcript.language_code and item.transcript:
            told["languages"] = [{"code": self._transcript.language_code}]
        if self.with_logprobs:
            told["logprobs"] = item.logprobs
        return told

    def _end_of_words(self) -> int:
        words = self._transcript.words
        return self._base + words[-1].end_sample if words else 0


def usage(num_samples: int) -> Message:
    """What so much audio counts for."""
    return {"type": "duration", "seconds": round(seconds(num_samples), 3)}


def _middle(word: Word) -> float:
    return (word.first_sample + word.end_sample) / 2


def _ms(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE_HZ


def _logprobs(texts: Sequence[str], words: Sequence[Word]) -> list[Message]:
    return [
        {
            "token": text,
            "logprob": round(math.log(max(word.probability, 1e-6)), 6),
            "bytes": list(text.encode()),
        }
        for text, word in zip(texts, words, strict=True)
    ]
