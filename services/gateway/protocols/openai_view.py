"""A transcript as OpenAI's transcription API writes it."""

import math
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.timeline import seconds
from services.common.words import Word, text_of
from services.gateway.languages import english_name
from services.gateway.segments import Segment, segments
from services.gateway.transcript import Decoding, Transcript

Body = dict[str, Any]

_LEAST_PROBABILITY = 1e-9
_SEEK_HZ = 100
"""Whisper counts positions in frames of 10 ms."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said in a file."""

    words: Sequence[Word]
    decodings: Sequence[Decoding]
    language_code: str
    """Of the words; empty if it is not known."""
    duration_s: float

    @classmethod
    def of(cls, transcript: Transcript, language_code: str) -> "Spoken":
        """What is in a transcript that is finished."""
        return cls(
            transcript.words,
            transcript.decodings,
            language_code,
            seconds(transcript.received_sample),
        )

    @property
    def text(self) -> str:
        """Everything, without white space around it."""
        return text_of(self.words).strip()


def json_body(spoken: Spoken, *, with_probabilities: bool = False) -> Body:
    """The body of ``response_format=json``."""
    body: Body = {"text": spoken.text, "usage": usage(spoken)}
    if spoken.language_code:
        body["languages"] = [{"code": spoken.language_code}]
    if with_probabilities:
        body["logprobs"] = _log_probabilities(spoken.words)
    return body


class Deltas:
    """A growing transcript as the events of ``stream=true``: nothing is ever taken back."""

    def __init__(self, transcript: Transcript, *, with_probabilities: bool) -> None:
        self._transcript = transcript
        self._with_probabilities = with_probabilities
        self._num_words = 0
        self._text = ""

    def news(self) -> list[Body]:
        """Events for the words since the last call."""
        words = self._transcript.words[self._num_words :]
        text = text_of(words)
        if not self._text:
            text = text.lstrip()
        if not text:
            return []
        self._num_words += len(words)
        self._text += text
        return [{"type": "transcript.text.delta", "delta": text, **self._probabilities(words)}]

    def done(self, language_code: str) -> Body:
        """The last event."""
        body: Body = {"type": "transcript.text.done", "text": self._text}
        if language_code:
            body["languages"] = [{"code": language_code}]
        return body | self._probabilities(self._transcript.words)

    def _probabilities(self, words: Sequence[Word]) -> Body:
        return {"logprobs": _log_probabilities(words)} if self._with_probabilities else {}


def _log_probabilities(words: Sequence[Word]) -> list[Body]:
    """Of words: those of tokens are not kept."""
    return [
        {
            "token": word.text,
            "logprob": round(math.log(max(word.probability, _LEAST_PROBABILITY)), 6),
            "bytes": list(word.text.encode()),
        }
        for word in words
    ]


def verbose_body(
    spoken: Spoken,
    *,
    task: str,
    with_words: bool,
    temperature: float,
    label_of: Callable[[int], str] | None = None,
) -> Body:
    """The body of ``response_format=verbose_json``.

    Args:
        spoken: What was said.
        task: ``transcribe`` or ``translate``.
        with_words: Whether the client wants times of words. Those of segments always come, because
            clients count on them.
        temperature: What the client asked for; segments say what was used, where that is known.
        label_of: What a speaker is called; None: who speaks does not matter.

    """

    def said_by(word: Word) -> Body:
        return {"speaker": label_of(word.speaker)} if label_of else {}

    body: Body = {
        "task": task,
        "language": english_name(spoken.language_code),
        "duration": round(spoken.duration_s, 3),
        "text": spoken.text,
        "segments": [
            segment | said_by(spoken.words[part.first_word])
            for part, segment in _segments(spoken, temperature)
        ],
        "usage": usage(spoken),
    }
    if with_words:
        body["words"] = [
            {
                "word": word.text.strip(),
                **span(spoken.duration_s, word.first_sample, word.end_sample),
                **said_by(word),
            }
            for word in spoken.words
        ]
    return body


def usage(spoken: Spoken) -> Body:
    """What is charged for: the length of the file."""
    return {"type": "duration", "seconds": float(math.ceil(spoken.duration_s))}


def span(duration_s: float, first_sample: int, end_sample: int) -> dict[str, float]:
    """Start and end within a file of a length, in seconds."""
    start_s = min(seconds(max(first_sample, 0)), duration_s)
    end_s = min(max(seconds(end_sample), start_s), duration_s)
    return {"start": round(start_s, 3), "end": round(end_s, 3)}


def _segments(spoken: Spoken, temperature: float) -> list[tuple[Segment, Body]]:
    parts = list(segments(spoken.words))
    texts = [text_of(spoken.words[part.first_word : part.end_word]) for part in parts]
    if texts:
        # So that the texts of all segments together are the text.
        texts[0], texts[-1] = texts[0].lstrip(), texts[-1].rstrip()
    return [
        (part, _segment(spoken, number, part, text, temperature))
        for number, (part, text) in enumerate(zip(parts, texts, strict=True))
    ]


def _segment(spoken: Spoken, number: int, part: Segment, text: str, temperature: float) -> Body:
    words = spoken.words[part.first_word : part.end_word]
    decodings = _decodings_of(spoken, part)
    window = spoken.words[decodings[0].first_word] if decodings else words[0]
    return {
        "id": number,
        "seek": round(span(spoken.duration_s, window.first_sample, 0)["start"] * _SEEK_HZ),
        **span(spoken.duration_s, words[0].first_sample, words[-1].end_sample),
        "text": text,
        "tokens": [token for word in words for token in word.token_ids],
        "temperature": round(decodings[0].temperature, 3) if decodings else temperature,
        "avg_logprob": _mean(decodings, [d.avg_log_probability for d in decodings]),
        "compression_ratio": _compression_ratio(text),
        "no_speech_prob": _mean(decodings, [d.no_speech_probability for d in decodings]),
    }


def _decodings_of(spoken: Spoken, part: Segment) -> Sequence[Decoding]:
    """The decodings that a segment's words are from."""
    first = bisect_right(spoken.decodings, part.first_word, key=_first_word) - 1
    end = bisect_left(spoken.decodings, part.end_word, key=_first_word)
    return spoken.decodings[max(first, 0) : end]


def _first_word(decoding: Decoding) -> int:
    return decoding.first_word


def _mean(decodings: Sequence[Decoding], values: Sequence[float]) -> float:
    """The mean of a value of each decoding, weighted by its words."""
    num_words = sum(decoding.num_words for decoding in decodings)
    if not num_words:
        return 0.0
    pairs = zip(decodings, values, strict=True)
    return round(sum(d.num_words * value for d, value in pairs) / num_words, 6)


def _compression_ratio(text: str) -> float:
    """How much shorter zlib makes a text: above 2.4 it repeats itself. Source: openai/whisper."""
    data = text.encode()
    return round(len(data) / len(zlib.compress(data)), 6)
