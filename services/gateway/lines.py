"""Committed words -> lines to read."""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.common.timeline import SAMPLE_RATE_HZ, samples
from services.common.words import Word
from services.gateway.speakers import NOBODY_KNOWS

PAUSE_SAMPLES = samples(5)
"""A longer pause is a line of its own."""
SENTENCE_CHARS = 200
"""A line that is longer ends with the sentence."""
LINE_CHARS = 400
"""No line is longer, unless a single word is."""

SILENCE = -2

_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")  # noqa: RUF001 -- full-width marks are meant


@dataclass(frozen=True, slots=True)
class Line:
    """A run of words of one speaker, or a pause between two."""

    speaker: int
    """Counts from 1, who is not told apart is 1; ``SILENCE``: nobody."""
    text: str
    first_sample: int
    end_sample: int


class Lines:
    """Grows with the transcript. Only the last line ever changes, by being replaced."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._end = 0
        """Position after the last word."""

    def __getitem__(self, part: slice) -> Sequence[Line]:
        return self._lines[part]

    def __len__(self) -> int:
        return len(self._lines)

    def extend(self, words: Iterable[Word]) -> None:
        """Add words, oldest first."""
        for word in words:
            self._add(word)

    def place_of(self, sample: int) -> int:
        """Which line holds the word that starts here."""
        place = bisect_right(self._lines, sample, key=lambda line: line.first_sample) - 1
        # A pause is followed by the word that ends it.
        return place + 1 if self._lines[place].speaker == SILENCE else max(0, place)

    def _add(self, word: Word) -> None:
        last = self._lines[-1] if self._lines else None
        speaker = word.speaker or NOBODY_KNOWS
        if not _is_punctuation(word.text):
            if word.first_sample - self._end > PAUSE_SAMPLES:
                self._lines.append(Line(SILENCE, "", self._end, word.first_sample))
                last = None
            elif last is not None and (last.speaker != speaker or _is_full(last.text, word.text)):
                last = None
        self._end = max(self._end, word.end_sample)
        if last is None:
            line = Line(speaker, word.text.lstrip(), word.first_sample, self._end)
            self._lines.append(line)
        else:
            self._lines[-1] = replace(last, text=last.text + word.text, end_sample=self._end)


def clock(sample: int) -> str:
    """A position as ``H:MM:SS.cc``, rounded to the nearest hundredth; hours are not padded."""
    hundredths = (sample * 100 + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ
    minutes, hundredths = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{hundredths // 100:02}.{hundredths % 100:02}"


def _is_full(line: str, word: str) -> bool:
    if len(line) + len(word) > LINE_CHARS:
        return True
    return len(line) > SENTENCE_CHARS and line.endswith(_SENTENCE_ENDS)


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(mark)[0] in "PZ" for mark in text)
