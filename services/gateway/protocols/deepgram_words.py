"""Words as Deepgram writes them, live and in recordings."""

import unicodedata
from collections.abc import Sequence
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


def iso_code(language_code: str) -> str:
    """The ISO 639 code of one of Whisper's languages."""
    return _ISO_CODES.get(language_code, language_code)


def spoken(words: Sequence[Word], language_code: str, style: Style) -> list[Word]:
    """The words that are told: fillers only if they are wanted. ``Um`` is a word in German."""
    if style.filler_words or language_code != "en":
        return list(words)
    return [word for word in words if _bare(word.text) not in _FILLERS]


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
    return "".join(_space(word.text) + _bare(word.text) for word in words).strip()


def confidence(words: Sequence[Word]) -> float:
    """The mean of the words' probabilities."""
    return _rounded(sum(word.probability for word in words) / len(words)) if words else 0.0


def word_bodies(
    words: Sequence[Word], language_code: str, style: Style, *, first_sample: int = 0
) -> list[Body]:
    """Each word with its place. A dash that stands alone is in the transcript only."""
    return [_word(word, language_code, style, first_sample) for word in words if _bare(word.text)]


def _word(word: Word, language_code: str, style: Style, first_sample: int) -> Body:
    start = max(word.first_sample, first_sample)
    body: Body = {
        "word": _bare(word.text),
        "start": offset(start),
        "end": offset(max(word.end_sample, start)),
        "confidence": _rounded(word.probability),
    }
    if style.punctuated:
        body["punctuated_word"] = word.text.strip()
    if style.with_languages and language_code:
        body["language"] = iso_code(language_code)
    return body


def offset(sample: int) -> float:
    """A position or a length in seconds."""
    return round(seconds(sample), 6)


def _rounded(probability: float) -> float:
    return round(min(max(probability, 0.0), 1.0), 6)


def _space(text: str) -> str:
    bare = _bare(text)
    return text[: len(text) - len(text.lstrip())] if bare else ""


def _bare(text: str) -> str:
    """A word in lower case, without the punctuation around it."""
    word = text.strip().lower()
    first, end = 0, len(word)
    while first < end and _is_punctuation(word[first]):
        first += 1
    while end > first and _is_punctuation(word[end - 1]):
        end -= 1
    return word[first:end]


def _is_punctuation(mark: str) -> bool:
    return mark not in _MEANT and unicodedata.category(mark)[0] == "P"
