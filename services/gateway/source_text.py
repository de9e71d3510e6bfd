"""What translators are told of a transcript: its words, what may follow, and where to finish."""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TypeAlias

from services.common.timeline import samples
from services.common.words import Word
from services.gateway.route import End, FlushMark
from services.gateway.transcript import Transcript

PAUSE_SAMPLES = samples(2)
"""After such a silence a sentence is translated as it is: nobody waits for its end."""

_MESSAGE_WORDS = 100
"""Words in one message: many come at once when a translator is back."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Words for good, and those that may follow them."""

    words: tuple[Word, ...]
    tail: tuple[Word, ...]
    end_sample: int
    """Position after the words."""


Text: TypeAlias = Spoken | FlushMark | End


class SourceText:
    """The words of a transcript from some point on: a log that only grows, but for the tail.

    The end of a word is its place in the log, so each ends at least a sample later than the one
    before it, whatever the recogniser says.
    """

    def __init__(self, transcript: Transcript) -> None:
        """Begin behind the words that the transcript has now."""
        self._transcript = transcript
        self._num_read = len(transcript.words)
        self._words: list[Word] = []
        self._ends: list[int] = []
        self._marks: list[int] = []
        self._complete = False
        self.tail: tuple[Word, ...] = ()
        self.first_sample = transcript.words[-1].end_sample if transcript.words else 0
        """Position before the words."""

    @property
    def end_sample(self) -> int:
        """Position after the words."""
        return self._ends[-1] if self._ends else self.first_sample

    def follow(self) -> bool:
        """Take in what the transcript has learnt; whether there is news."""
        transcript = self._transcript
        new = transcript.words[self._num_read :]
        self._num_read += len(new)
        for word in new:
            self._add(word)
        news = bool(new) or transcript.tail != self.tail
        self.tail = transcript.tail
        if not self.tail and transcript.settled_sample - self.end_sample >= PAUSE_SAMPLES:
            news |= self._mark()
        return news

    def add_mark(self) -> int:
        """Ask for a translation of all words; the mark's position."""
        self._mark()
        return self.end_sample

    def complete(self) -> None:
        """Nothing will be added any more."""
        self._complete = True

    def read_from(self, position: int, flushed_sample: int) -> Text | None:
        """What comes at a position; None: nothing does, so far.

        Args:
            position: The end of the last word that the reader has.
            flushed_sample: Marks up to this one are none of the reader's business.

        """
        ahead = bisect_right(self._marks, flushed_sample)
        passed = bisect_right(self._marks, position)
        if passed > ahead:
            return FlushMark(self._marks[passed - 1])
        if position >= self.end_sample:
            return End() if self._complete else None
        first = bisect_right(self._ends, position)
        last = min(first + _MESSAGE_WORDS, len(self._words))
        if passed < len(self._marks):
            last = min(last, bisect_right(self._ends, self._marks[passed]))
        tail = self.tail if last == len(self._words) else ()
        return Spoken(tuple(self._words[first:last]), tail, self._ends[last - 1])

    def _add(self, word: Word) -> None:
        if self._words and word.speaker != self._words[-1].speaker:
            # Nobody finishes the sentence of somebody else.
            self._mark()
        end = max(word.end_sample, self.end_sample + 1)
        self._words.append(replace(word, end_sample=end))
        self._ends.append(end)

    def _mark(self) -> bool:
        if not self._words or self._marks[-1:] == [self.end_sample]:
            return False
        self._marks.append(self.end_sample)
        return True


class Excerpt:
    """The part of a source text that is translated into one language."""

    def __init__(self, text: SourceText) -> None:
        """Begin behind the words that there are now."""
        self._text = text
        self.first_sample = text.end_sample
        self.end_sample: int | None = None
        """Where it ends; None: with the text."""

    def end(self) -> None:
        """End it behind the words that there are now."""
        self.end_sample = self._text.end_sample

    def read(self, replay_sample: int, settled_sample: int, flushed_sample: int) -> "ExcerptReader":
        """What a stream is told, from its first message on.

        Args:
            replay_sample: Where it starts.
            settled_sample: The same: a translator's checkpoint knows all words before it.
            flushed_sample: The last mark that was answered.

        """
        return ExcerptReader(self._text, self, replay_sample, flushed_sample)


class ExcerptReader:
    """Where one stream stands in an excerpt."""

    def __init__(
        self, text: SourceText, excerpt: Excerpt, position: int, flushed_sample: int
    ) -> None:
        self._text = text
        self._excerpt = excerpt
        self._position = position
        self._flushed_sample = max(flushed_sample, excerpt.first_sample)
        self._tail: tuple[Word, ...] = ()

    def next(self) -> Text | None:
        """What comes next; None: that is not known yet."""
        end_sample = self._excerpt.end_sample
        if end_sample is not None and self._position >= end_sample:
            return End()
        piece = self._text.read_from(self._position, self._flushed_sample)
        match piece:
            case Spoken():
                if end_sample is not None and piece.end_sample > end_sample:
                    words = tuple(word for word in piece.words if word.end_sample <= end_sample)
                    piece = Spoken(words, (), end_sample)
                self._position = piece.end_sample
                self._tail = piece.tail
            case FlushMark(sample):
                self._flushed_sample = sample
            case None if self._text.tail != self._tail:
                self._tail = self._text.tail
                return Spoken((), self._tail, self._position)
        return piece
