"""A finished transcript as Deepgram's pre-recorded API writes it."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.common.timeline import samples
from services.common.words import Word
from services.gateway.protocols.deepgram_query import Wish
from services.gateway.protocols.deepgram_words import (
    Body,
    Style,
    alternative,
    confidence,
    iso_code,
    offset,
    search,
    speaker_of,
    spoken,
    transcript,
    word_bodies,
)
from services.gateway.segments import SENTENCE_END

_PARAGRAPH_SENTENCES = 4
_PARAGRAPH_PAUSE_SAMPLES = samples(2)
_WITHOUT_DIARIZER = (
    "had no effect, or not to the end: without a diarizer, speakers are not told apart"
)


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said on a channel of a recording."""

    words: Sequence[Word]
    language_code: str
    """Empty if it is not known."""
    language_probability: float
    without_diarizer: bool = False
    """Whether one was wanted, and there was none in the end."""


def results(heard: Sequence[Heard], wish: Wish) -> Body:
    """Everything that the client wants to know of what was said on each channel."""
    style = wish.style
    body: Body = {"channels": [_channel(channel, wish, style) for channel in heard]}
    if wish.utterances:
        told = [
            _utterance(run, number, channel.language_code, style)
            for number, channel in enumerate(heard)
            for run in _runs(_spoken(channel, style), wish.utt_split_samples)
        ]
        body["utterances"] = sorted(told, key=lambda utterance: utterance["start"])
    return body


def _channel(heard: Heard, wish: Wish, style: Style) -> Body:
    words = _spoken(heard, style)
    told = alternative(heard.words, heard.language_code, style)
    if wish.paragraphs:
        told["paragraphs"] = _paragraphs(words, style)
    body: Body = {"alternatives": [told]}
    if wish.queries:
        body["search"] = search(heard.words, wish.queries, style)
    if wish.detect_language and heard.language_code:
        body["detected_language"] = iso_code(heard.language_code)
        body["language_confidence"] = round(heard.language_probability, 6)
    return body


def _spoken(heard: Heard, style: Style) -> list[Word]:
    return spoken(heard.words, heard.language_code, style)


def warnings(heard: Sequence[Heard], wish: Wish) -> list[Body]:
    """What the client has asked for and does not get."""
    told = list(wish.warnings)
    if any(channel.without_diarizer for channel in heard):
        told.append(("diarize", _WITHOUT_DIARIZER))
    return [
        {"parameter": name, "type": "unsupported", "message": f"{name} {why}"}
        for name, why in sorted(told)
    ]


def _runs(words: Sequence[Word], pause_samples: int) -> Iterator[Sequence[Word]]:
    """Part the words at pauses of at least a length, and where somebody else speaks."""
    cuts = [
        index
        for index, (word, following) in enumerate(pairwise(words), 1)
        if following.first_sample - word.end_sample >= pause_samples
        or following.speaker != word.speaker
    ]
    for first, end in pairwise([0, *cuts, len(words)]):
        if first < end:
            yield words[first:end]


def _utterance(words: Sequence[Word], channel: int, language_code: str, style: Style) -> Body:
    return {
        **_span(words),
        "confidence": confidence(words),
        "channel": channel,
        "transcript": transcript(words, style),
        "words": word_bodies(words, language_code, style),
        **speaker_of(words[0]),
        "id": str(uuid.uuid4()),
    }


def _paragraphs(words: Sequence[Word], style: Style) -> Body:
    paragraphs: list[list[Sequence[Word]]] = []
    for sentence in _sentences(words):
        if not paragraphs or _begins_paragraph(paragraphs[-1], sentence):
            paragraphs.append([])
        paragraphs[-1].append(sentence)
    bodies = [_paragraph(sentences, style) for sentences in paragraphs]
    return {"transcript": "\n" + "\n\n".join(_texts(bodies)), "paragraphs": bodies}


def _texts(paragraphs: Sequence[Body]) -> Iterator[str]:
    """The text of each paragraph; where somebody else speaks than before, it says who."""
    last = None
    for paragraph in paragraphs:
        text = " ".join(sentence["text"] for sentence in paragraph["sentences"])
        speaker = paragraph.get("speaker")
        yield text if speaker == last else f"Speaker {speaker}: {text}"
        last = speaker


def _sentences(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Part the words at ends of sentences, and where somebody else speaks."""
    first = 0
    for end, word in enumerate(words, 1):
        last = end == len(words) or words[end].speaker != word.speaker
        if last or SENTENCE_END.search(word.text):
            yield words[first:end]
            first = end


def _begins_paragraph(before: Sequence[Sequence[Word]], sentence: Sequence[Word]) -> bool:
    last = before[-1][-1]
    pause = sentence[0].first_sample - last.end_sample
    return (
        len(before) >= _PARAGRAPH_SENTENCES
        or pause >= _PARAGRAPH_PAUSE_SAMPLES
        or sentence[0].speaker != last.speaker
    )


def _paragraph(sentences: Sequence[Sequence[Word]], style: Style) -> Body:
    return {
        "sentences": [{"text": transcript(words, style), **_span(words)} for words in sentences],
        **speaker_of(sentences[0][0]),
        "num_words": sum(len(words) for words in sentences),
        "start": offset(sentences[0][0].first_sample),
        "end": offset(sentences[-1][-1].end_sample),
    }


def _span(words: Sequence[Word]) -> dict[str, float]:
    return {"start": offset(words[0].first_sample), "end": offset(words[-1].end_sample)}
