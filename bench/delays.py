"""When each word of the reference could be read, and when it was final.

Words of the reference and of the captions are aligned, so that a word that was misheard is left out
and spoils no clock.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.converse import Captions, Heard
from bench.corpus import TimedWord
from bench.score import align, normalize

PAUSE_S = 0.5
"""Silence between two words that ends speech."""
_EARLY_S = 0.2
"""A word may be shown so long before the reference says that it begins: its times are as rough."""
_MISHEARD_S = 1.0
"""A misheard word stands for the last before a pause, if it ends so close to it."""
_SLACK = 12
"""A tail's words are looked for among so many more of the reference."""


@dataclass(frozen=True, slots=True)
class Delay:
    """A word of the reference that was heard right, and its delays after it had been spoken."""

    index: int
    """Among the words of the reference."""
    end_s: float
    """When it has been spoken, in seconds of audio."""
    first_s: float
    """Until it first stood in the captions where it belongs."""
    remained_s: float
    """Until it stood there for good."""
    final_s: float
    """Until it was said to be final."""
    time_error_s: float
    """Its end in the captions, less its end in the reference."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A normalised word; one word may be two (I'm: i am) or none (uh)."""

    text: str
    word: int
    """Index of the word that it is of."""


def _tokens(words: Iterable[str], language_code: str) -> list[_Token]:
    return [
        _Token(token, index)
        for index, word in enumerate(words)
        for token in normalize(word, language_code)
    ]


class Clockwork:
    """One session against the reference."""

    def __init__(self, reference: Sequence[TimedWord], heard: Heard, language_code: str) -> None:
        """Align the final words.

        Args:
            reference: The words said, in order.
            heard: The session.
            language_code: Says how words are normalised.

        """
        self._reference = reference
        self._heard = heard
        self._words = heard.words
        self._language_code = language_code
        self._expected = _tokens((word.text for word in reference), language_code)
        self._final = _tokens((word.text for word in self._words), language_code)
        steps = align([token.text for token in self._expected], [t.text for t in self._final])
        self._equal: dict[int, int] = {}
        """Tokens of the reference that were heard right -> tokens of the captions, in order."""
        self._paired: dict[int, int] = {}
        """Tokens of the captions -> tokens of the reference that they are, or are misheard from."""
        for step in steps:
            for expected, said in zip(step.reference, step.text, strict=False):
                self._paired[said] = expected
                if step.kind == "equal":
                    self._equal[expected] = said

    def delays(self) -> list[Delay]:
        """Of the words that were heard right, in order."""
        first, remained = self._shown()
        found = {}
        for expected, heard in self._equal.items():
            word = self._reference[index := self._expected[expected].word]
            caption = self._final[heard].word
            spoken_at_s = word.end_s / self._heard.pace
            final_at_s = self._heard.final_at_s(caption)
            found[index] = Delay(
                index=index,
                end_s=word.end_s,
                first_s=min(first.get(expected, final_at_s), final_at_s) - spoken_at_s,
                remained_s=min(remained.get(expected, final_at_s), final_at_s) - spoken_at_s,
                final_s=final_at_s - spoken_at_s,
                time_error_s=self._words[caption].end_s - word.end_s,
            )
        return [found[index] for index in sorted(found)]

    def speech_ends(self) -> list[float | None]:
        """From each pause's beginning until the last words before it were final, in seconds.

        The last entry is that of the end of the recording. None: the last word was not heard. One
        that was misheard counts, if the captions place it there.
        """
        return [self._ended(word) for word in speech_ends(self._reference)]

    def _ended(self, word: int) -> float | None:
        """As ``speech_ends``, for the end behind one word."""
        end_s = self._reference[word].end_s
        following = self._reference[word + 1 : word + 2]
        resumed_s = following[0].start_s if following else math.inf
        before, last, after = -1, -1, len(self._words)
        for expected, heard in self._equal.items():
            place = self._expected[expected].word
            if place <= word:
                before = self._final[heard].word
                last = before if place == word else -1
            else:
                after = min(after, self._final[heard].word)
        for caption in range(before + 1, after):
            misheard_s = self._words[caption].end_s
            if abs(misheard_s - end_s) < _MISHEARD_S and misheard_s < resumed_s:
                last = caption
        return self._heard.final_at_s(last) - end_s / self._heard.pace if last >= 0 else None

    def _shown(self) -> tuple[dict[int, float], dict[int, float]]:
        """When each token stood in a tail, the first time and for good, in seconds of the clock."""
        first: dict[int, float] = {}
        remained: dict[int, float] = {}
        standing: dict[int, float] = {}
        reached, num_tokens, num_words = 0, 0, 0
        for captions in self._heard.captions:
            num_words += len(captions.words)
            while num_tokens < len(self._final) and self._final[num_tokens].word < num_words:
                reached = self._paired.get(num_tokens, reached - 1) + 1
                num_tokens += 1
            shown = self._in_tail(captions, reached)
            for token in list(standing):
                if token < reached:
                    remained[token] = standing.pop(token)
                elif token not in shown:
                    del standing[token]
            for token in shown:
                first.setdefault(token, captions.at_s)
                standing.setdefault(token, captions.at_s)
        return first, remained | standing

    def _in_tail(self, captions: Captions, reached: int) -> set[int]:
        """The tokens of the reference that a tail shows, from one on, as far as it was spoken."""
        spoken_s = captions.at_s * self._heard.pace + _EARLY_S
        tokens = [token.text for token in _tokens(captions.tail.split(), self._language_code)]
        expected = []
        for token in self._expected[reached : reached + len(tokens) + _SLACK]:
            if self._reference[token.word].start_s > spoken_s:
                break
            expected.append(token.text)
        return {reached + index for index in beginning(expected, tokens)}


def word_end_errors(
    reference: Sequence[TimedWord], words: Sequence[TimedWord], language_code: str
) -> list[float]:
    """By how much the ends of words that were heard right are off, in seconds, without sign."""
    expected = _tokens((word.text for word in reference), language_code)
    heard = _tokens((word.text for word in words), language_code)
    errors = {}
    for step in align([token.text for token in expected], [token.text for token in heard]):
        if step.kind == "equal":
            for left, right in zip(step.reference, step.text, strict=True):
                word = expected[left].word
                errors[word] = abs(words[heard[right].word].end_s - reference[word].end_s)
    return list(errors.values())


def speech_ends(words: Sequence[TimedWord]) -> list[int]:
    """The words behind which speech ends: those before a pause, and the last."""
    ends = [
        index
        for index, (before, after) in enumerate(pairwise(words))
        if after.start_s - before.end_s >= PAUSE_S
    ]
    return [*ends, len(words) - 1] if words else []


def beginning(reference: Sequence[str], text: Sequence[str]) -> list[int]:
    """The words of a reference that a text has right, if the text is the reference's beginning.

    Least edits, where it costs nothing how much of the reference follows the text; of several ways,
    one that has the most words right.
    """
    rows = [[(column, 0) for column in range(len(reference) + 1)]]
    for index, word in enumerate(text, 1):
        row = [(index, 0)]
        for column, expected in enumerate(reference, 1):
            edits, wrong = rows[-1][column - 1]
            equal = (edits, wrong - 1) if word == expected else (edits + 1, wrong)
            added = (rows[-1][column][0] + 1, rows[-1][column][1])
            left_out = (row[-1][0] + 1, row[-1][1])
            row.append(min(equal, added, left_out))
        rows.append(row)
    column = min(range(len(reference) + 1), key=lambda column: rows[-1][column])
    return _trace(reference, text, rows, column)


def _trace(
    reference: Sequence[str], text: Sequence[str], rows: list[list[tuple[int, int]]], column: int
) -> list[int]:
    """Walk the table of ``beginning`` back from its last row."""
    found = []
    row = len(text)
    while row and column:
        edits, wrong = rows[row - 1][column - 1]
        if text[row - 1] == reference[column - 1] and rows[row][column] == (edits, wrong - 1):
            found.append(column - 1)
            row, column = row - 1, column - 1
        elif rows[row][column] == (edits + 1, wrong):
            row, column = row - 1, column - 1
        elif rows[row][column] == (rows[row - 1][column][0] + 1, rows[row - 1][column][1]):
            row -= 1
        else:
            column -= 1
    return found[::-1]
