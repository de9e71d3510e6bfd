"""Who said which word: turns of speakers and words, brought together.

A word waits until it is decided who spoke when it was said. Where somebody else seems to speak soon
after it, it waits for two more words, for a change of speakers close to the end of a sentence is
taken to be there: turns and words are each some tenths of a second off.
"""

import unicodedata
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.common.timeline import samples
from services.common.words import Word
from services.gateway.segments import SENTENCE_END
from services.gateway.transcript import Scores, Transcript

_NEAR_WORDS = 2
_NEAR_SAMPLES = samples(0.8)
"""A change of speakers is moved past no more than so many words, which last no longer."""
_ALONE_SAMPLES = samples(1.0)
"""A word behind which nothing was said for so long waits for no other."""
_OVERLAP = 0.5
"""Share of a word during which another speaker speaks, too, from which it counts as overlapped."""

NOBODY_KNOWS = 1
"""Who speaks where nobody can be told apart."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One person speaking without a pause."""

    speaker: int
    first_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Words that the recogniser committed together, of which some still wait."""

    num_words: int
    scores: Scores


class Speakers:
    """Stands before a transcript and lets words in once their speaker is known.

    Everything here is a function of words, turns and positions; who gives up waiting says so with
    ``release``.
    """

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._waiting: list[Word] = []
        self._runs: deque[_Run] = deque()
        self._turns: list[Turn] = []
        self._settled_sample = 0
        self._through_sample = 0
        self._entered_sample = 0
        """Position before which there will be no word that has not been let in."""
        self._last = 0
        """Who said the last word; 0: nobody has said any."""
        self._absent = False

    @property
    def oldest(self) -> Word | None:
        """The word that has waited longest."""
        return self._waiting[0] if self._waiting else None

    def commit(self, words: Sequence[Word], scores: Scores) -> None:
        """The recogniser is sure of more words."""
        self._waiting += words
        self._runs.append(_Run(len(words), scores))
        self._transcript.hold(self._waiting)
        self._let_in()

    def hear(
        self,
        turns: Sequence[Turn],
        first_sample: int,
        settled_sample: int,
        through_sample: int = 0,
    ) -> None:
        """Who speaks from a position on; takes the place of what was said of it before.

        Args:
            turns: In order of their start.
            first_sample: The position.
            settled_sample: Position before which this is for good.
            through_sample: Position before which something is known.

        """
        # The recogniser may be far behind: turns stay until their words have come.
        oldest = self._waiting[0].first_sample if self._waiting else self._entered_sample
        kept = [
            replace(turn, end_sample=min(turn.end_sample, first_sample))
            for turn in self._turns
            if turn.first_sample < first_sample
        ]
        # The last that has ended is kept: it may be the nearest to a word that nobody said.
        past = [turn for turn in kept if turn.end_sample <= oldest - _ALONE_SAMPLES]
        self._turns = _joined([*past[-1:], *kept[len(past) :], *turns])
        self._settled_sample = max(self._settled_sample, settled_sample)
        self._through_sample = max(self._through_sample, through_sample)
        self._let_in()

    def settle(self, sample: int) -> None:
        """All that was said before this position is known, words and speakers."""
        self._settled_sample = max(self._settled_sample, sample)
        ended = [word for word in self._waiting if word.first_sample < sample]
        self._let_in(at_least=len(ended))
        self._entered_sample = max(self._entered_sample, sample)

    def release(self) -> None:
        """Let all words in that wait, with whatever is known."""
        self._let_in(at_least=len(self._waiting))

    def give_up(self) -> None:
        """Nobody tells speakers apart any more."""
        self._absent = True
        self.release()

    def _let_in(self, *, at_least: int = 0) -> None:
        if self._absent:
            at_least = len(self._waiting)
        known = at_least
        while known < len(self._waiting) and self._is_known(self._waiting[known]):
            known += 1
        words = self._attributed(self._waiting[:known])
        ready = max(at_least, self._decided(words))
        if ready:
            self._last = words[ready - 1].speaker
            self._entered_sample = max(self._entered_sample, words[ready - 1].end_sample)
            self._enter(words[:ready])
            del self._waiting[:ready]
        elif self._runs and not self._waiting:
            self._enter([])

    def _is_known(self, word: Word) -> bool:
        return word.end_sample <= self._settled_sample

    def _decided(self, words: Sequence[Word]) -> int:
        """How many of the words no later word can change."""
        for end in range(len(words), 0, -1):
            last = words[end - 1]
            followed = len(words) - end >= _NEAR_WORDS
            alone = self._settled_sample - last.end_sample >= _ALONE_SAMPLES
            if followed or alone or self._goes_on(last) or SENTENCE_END.search(last.text):
                return end
        return 0

    def _goes_on(self, word: Word) -> bool:
        """Whether nobody else seems to speak soon after a word."""
        near = word.end_sample + _NEAR_SAMPLES
        return max(self._through_sample, self._settled_sample) >= near and not any(
            turn.speaker != word.speaker
            and turn.first_sample < near
            and turn.end_sample > word.first_sample
            for turn in self._turns
        )

    def _attributed(self, words: Sequence[Word]) -> list[Word]:
        found: list[Word] = []
        last = self._last
        for word in words:
            speaker, overlapped = self._speaker_of(word, last)
            found.append(replace(word, speaker=speaker, overlapped=overlapped))
            last = speaker
        return _snapped(found)

    def _speaker_of(self, word: Word, last: int) -> tuple[int, bool]:
        if _is_punctuation(word.text) and last:
            return last, False
        spoken: Counter[int] = Counter()
        for turn in self._turns:
            common = min(turn.end_sample, word.end_sample) - max(
                turn.first_sample, word.first_sample
            )
            if common > 0:
                spoken[turn.speaker] += common
        if not spoken:
            return self._nearest(word) or last or NOBODY_KNOWS, False
        most = max(spoken.values())
        # Who speaks already goes on, unless another one speaks longer.
        speaker = last if spoken[last] == most else min(s for s in spoken if spoken[s] == most)
        enough = _OVERLAP * (word.end_sample - word.first_sample)
        overlapped = any(one != speaker and long >= enough for one, long in spoken.items())
        return speaker, overlapped

    def _nearest(self, word: Word) -> int:
        """Who speaks nearest to a word that is in nobody's turn; 0: nobody near."""

        def distance(turn: Turn) -> int:
            return max(turn.first_sample - word.end_sample, word.first_sample - turn.end_sample)

        nearest = min(self._turns, key=distance, default=None)
        if nearest is None or distance(nearest) > _ALONE_SAMPLES:
            return 0
        return nearest.speaker

    def _enter(self, words: Sequence[Word]) -> None:
        """Let words into the transcript, by the runs in which they were committed."""
        at = 0
        while self._runs and at <= len(words):
            run = self._runs[0]
            part = words[at : at + run.num_words]
            whole = len(part) == run.num_words
            if part or whole:
                self._transcript.let_in(part, run.scores)
            if not whole:
                self._runs[0] = replace(run, num_words=run.num_words - len(part))
                return
            self._runs.popleft()
            at += len(part)


def _snapped(words: Sequence[Word]) -> list[Word]:
    """The words, with changes of speakers moved to ends of sentences that are near.

    Three cases: a change where a sentence ends stays; one shortly after the end of a sentence is
    moved back to it; one shortly before, in the middle of a sentence, is moved on to it.
    """
    found = list(words)
    for change in range(1, len(found)):
        before, after = found[change - 1].speaker, found[change].speaker
        if before == after or SENTENCE_END.search(found[change - 1].text):
            continue
        for distance in range(1, _NEAR_WORDS + 1):
            back, on = change - distance, change + distance
            if back > 0 and _ends_before(found, back, change, before):
                found[back:change] = [replace(word, speaker=after) for word in found[back:change]]
                break
            if on <= len(found) and _ends_at(found, change, on, after):
                found[change:on] = [replace(word, speaker=before) for word in found[change:on]]
                break
    return found


def _ends_before(words: Sequence[Word], back: int, change: int, speaker: int) -> bool:
    moved = words[back:change]
    return (
        bool(SENTENCE_END.search(words[back - 1].text))
        and _is_short(moved)
        and all(word.speaker == speaker for word in (words[back - 1], *moved))
    )


def _ends_at(words: Sequence[Word], change: int, on: int, speaker: int) -> bool:
    moved = words[change:on]
    return (
        bool(SENTENCE_END.search(moved[-1].text))
        and _is_short(moved)
        and all(word.speaker == speaker for word in moved)
        # "Yes." is a sentence of its own, and whose it was is known.
        and not moved[0].text.lstrip()[:1].isupper()
    )


def _is_short(words: Sequence[Word]) -> bool:
    return words[-1].end_sample - words[0].first_sample <= _NEAR_SAMPLES


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, those of one speaker that touch made one."""
    found: list[Turn] = []
    open_turns: dict[int, int] = {}
    for turn in turns:
        at = open_turns.get(turn.speaker)
        if at is not None and found[at].end_sample >= turn.first_sample:
            end = max(found[at].end_sample, turn.end_sample)
            found[at] = replace(found[at], end_sample=end)
        else:
            open_turns[turn.speaker] = len(found)
            found.append(turn)
    return found


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(mark)[0] in "PZ" for mark in text)
