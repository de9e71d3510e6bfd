"""Committed words -> segments: what one speaker says, a sentence or so at a time."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.common.timeline import samples
from services.common.words import Word

SENTENCE_END = re.compile(r"[.!?…。！？｡]['\"”’»)\]]*$")  # noqa: RUF001 - marks of every script
"""Matches the text of a word that ends a sentence."""
CLAUSE_END = re.compile(r"[,;:、，；：–—]['\"”’»)\]]*$")  # noqa: RUF001 - likewise
"""Matches the text of a word after which a sentence takes a breath."""

_MAX_SAMPLES = samples(30)
_PAUSE_SAMPLES = samples(2)
"""Silence after which a new segment begins, whatever the sentence."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive words, by their indices."""

    first_word: int
    end_word: int


def segments(words: Sequence[Word]) -> Iterator[Segment]:
    """Part the words at sentence ends, long pauses and changes of speakers, after 30 s at most.

    A sentence that is longer is parted at its best place. Every word is in exactly one segment.
    Words that follow change no segment but the last.
    """
    first = 0
    for index, word in enumerate(words):
        while word.end_sample - words[first].first_sample > _MAX_SAMPLES and first < index:
            cut = _best_cut(words, first, index)
            yield Segment(first, cut)
            first = cut
        if index + 1 == len(words) or _ends_here(word, words[index + 1]):
            yield Segment(first, index + 1)
            first = index + 1


def _ends_here(word: Word, following: Word) -> bool:
    if following.speaker != word.speaker:
        return True
    if following.first_sample - word.end_sample >= _PAUSE_SAMPLES:
        return True
    # "e.g. this": a sentence does not begin in lower case.
    return bool(SENTENCE_END.search(word.text)) and not following.text.lstrip()[:1].islower()


def _best_cut(words: Sequence[Word], first: int, end: int) -> int:
    """The best place before ``end`` to part a stretch that is too long, in its second half."""
    middle = (words[first].first_sample + words[end - 1].end_sample) // 2
    candidates = [i for i in range(first + 1, end + 1) if words[i - 1].end_sample > middle]

    def merit(cut: int) -> tuple[bool, int, int]:
        pause = words[cut].first_sample - words[cut - 1].end_sample
        return bool(CLAUSE_END.search(words[cut - 1].text)), pause, cut

    return max(candidates, key=merit, default=end)
