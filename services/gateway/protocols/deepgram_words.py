"""Words as Deepgram writes them, live and in recordings."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.timeline import seconds
from services.common.words import Word, text_of

Body = dict[str, Any]

_MEANT = frozenset("%&@#+$€£")
"""Marks that are spoken, and stay where punctuation goes."""
_FILLERS = frozenset({"uh", "um"})
_ISO_CODES = {"jw": "jv"}
"""Whisper's codes that are no ISO 639-1 codes."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a client wants words to be written."""

    punctuated: bool
    filler_words: bool
    with_languages: bool
    replacements: tuple["Replacement", ...] = ()
    """The first that fits is taken, and what has been replaced is not looked at again."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is to be written in place of something that is said."""

    said: tuple[str, ...]
    """Words in lower case, without the punctuation around them."""
    written: str
    """Empty: nothing is written."""


@dataclass(frozen=True, slots=True)
class _Written(Word):
    """A word as a client wants it: what is in it stays as it is."""

    bare: str = ""


def iso_code(language_code: str) -> str:
    """The ISO 639 code of one of Whisper's languages."""
    return _ISO_CODES.get(language_code, language_code)


def spoken(words: Sequence[Word], language_code: str, style: Style) -> list[Word]:
    """The words that are told: fillers only if they are wanted. ``Um`` is a word in German."""
    if not style.filler_words and language_code == "en":
        words = [word for word in words if _bare(word) not in _FILLERS]
    return list(_replaced(words, style.replacements) if style.replacements else words)


def phrase(text: str) -> tuple[str, ...]:
    """The words of a text, as they are looked for."""
    return tuple(filter(None, map(_stripped, text.lower().split())))


def search(words: Sequence[Word], queries: Sequence[str], style: Style) -> list[Body]:
    """Where each of the queries was said, word by word."""
    return [{"query": query, "hits": list(_hits(words, query, style))} for query in queries]


def _hits(words: Sequence[Word], query: str, style: Style) -> Iterator[Body]:
    said = phrase(query)
    bare = [_bare(word) for word in words]
    for first in range(len(words)) if said else ():
        end = first + len(said)
        if tuple(bare[first:end]) == said:
            found = words[first:end]
            yield {
                "confidence": confidence(found),
                "start": offset(found[0].first_sample),
                "end": offset(found[-1].end_sample),
                "snippet": transcript(found, style),
            }


def _replaced(words: Sequence[Word], replacements: Sequence[Replacement]) -> Iterator[Word]:
    bare = [_bare(word) for word in words]
    first = 0
    while first < len(words):
        fitting = (r for r in replacements if tuple(bare[first : first + len(r.said)]) == r.said)
        if (found := next(fitting, None)) is None:
            yield words[first]
            first += 1
            continue
        end = first + len(found.said)
        if found.written:
            yield _written(words[first:end], found.written)
        first = end


def _written(words: Sequence[Word], text: str) -> Word:
    """Another text in place of some words, with the punctuation around them."""
    before, after = words[0].text, words[-1].text
    opening = before[: before.lower().find(_bare(words[0]))]
    bare = _bare(words[-1])
    closing = after[after.lower().rfind(bare) + len(bare) :]
    return _Written(
        opening + text + closing,
        words[0].first_sample,
        words[-1].end_sample,
        sum(word.probability for word in words) / len(words),
        speaker=words[0].speaker,
        bare=text,
    )


def alternative(
    words: Sequence[Word], language_code: str, style: Style, *, first_sample: int = 0
) -> Body:
    """What was said, as the only alternative.

    Args:
        words: What was said.
        language_code: Of the words; empty if it is not known.
        style: How they are written.
        first_sample: Where the audio begins of which this is the text.

    """
    told = spoken(words, language_code, style)
    body: Body = {
        "transcript": transcript(told, style),
        "confidence": confidence(told),
        "words": word_bodies(told, language_code, style, first_sample=first_sample),
    }
    if style.with_languages and language_code:
        body["languages"] = [iso_code(language_code)]
    return body


def transcript(words: Sequence[Word], style: Style) -> str:
    """The text; in lower case and without punctuation, unless it is wanted."""
    if style.punctuated:
        return text_of(words).strip()
    return "".join(_space(word) + _bare(word) for word in words).strip()


def confidence(words: Sequence[Word]) -> float:
    """The mean of the words' probabilities."""
    return _rounded(sum(word.probability for word in words) / len(words)) if words else 0.0


def word_bodies(
    words: Sequence[Word], language_code: str, style: Style, *, first_sample: int = 0
) -> list[Body]:
    """Each word with its place. A dash that stands alone is in the transcript only."""
    return [_word(word, language_code, style, first_sample) for word in words if _bare(word)]


def _word(word: Word, language_code: str, style: Style, first_sample: int) -> Body:
    start = max(word.first_sample, first_sample)
    body: Body = {
        "word": _bare(word),
        "start": offset(start),
        "end": offset(max(word.end_sample, start)),
        "confidence": _rounded(word.probability),
    }
    if style.punctuated:
        body["punctuated_word"] = word.text.strip()
    if style.with_languages and language_code:
        body["language"] = iso_code(language_code)
    return body | speaker_of(word)


def speaker_of(word: Word) -> Body:
    """Who said a word, from 0; nothing where that is not known."""
    return {"speaker": word.speaker - 1} if word.speaker else {}


def offset(sample: int) -> float:
    """A position or a length in seconds."""
    return round(seconds(sample), 6)


def _rounded(probability: float) -> float:
    return round(min(max(probability, 0.0), 1.0), 6)


def _space(word: Word) -> str:
    """The white space before a word, unless it is nothing but punctuation."""
    return word.text[: len(word.text) - len(word.text.lstrip())] if _bare(word) else ""


def _bare(word: Word) -> str:
    """A word in lower case, without the punctuation around it."""
    return word.bare if isinstance(word, _Written) else _stripped(word.text.strip().lower())


def _stripped(word: str) -> str:
    first, end = 0, len(word)
    while first < end and _is_punctuation(word[first]):
        first += 1
    while end > first and _is_punctuation(word[end - 1]):
        end -= 1
    return word[first:end]


def _is_punctuation(mark: str) -> bool:
    return mark not in _MEANT and unicodedata.category(mark)[0] == "P"
