"""One stream: words in, translated text out. It waits only for the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeAlias

from services.common.batching import Batcher, Seat
from services.common.errors import InvalidRequestError
from services.common.wire import MAX_POSITION
from services.common.words import Word, text_of
from services.translator import checkpoint
from services.translator.checkpoint import State
from services.translator.draft import Draft, Piece
from services.translator.policies.policy import Hypothesis, Policy
from services.translator.policies.units import common, units_of
from services.translator.segmenter import finished
from services.translator.translator import Job, Look, Pair, Translation, Translator

_SHOWN_HELD_BACK = 2
"""Units at the end of what two translations agree on that are not shown: they change most."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Text that will not change, and where a successor would go on behind it."""

    text: str
    first_sample: int
    end_sample: int
    through_sample: int
    """Position after the last word that the state knows."""
    state: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """Text that may change. Takes the place of the tail before it."""

    text: str
    through_sample: int
    """Position after the last committed word that was taken in."""


Event: TypeAlias = Commit | Tail


class Stream:
    """Translates the words of one lane, a sentence at a time and while it is said."""

    def __init__(
        self,
        translator: Translator,
        batcher: Batcher[Job, Translation],
        seat: Seat,
        pair: Pair,
        policy: Policy,
        *,
        state: bytes | None,
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start afresh, or where a predecessor stood.

        Args:
            translator: The model.
            batcher: Shares it.
            seat: The stream's place among others.
            pair: From which language into which.
            policy: Says what is certain of a sentence that is not finished.
            state: Where a predecessor stood; None: start afresh.
            waits: Whether something newer was said meanwhile: then guesses are not translated.

        Raises:
            CheckpointError: The predecessor's state is damaged.

        """
        self._translator = translator
        self._batcher = batcher
        self._seat = seat
        self._pair = pair
        self._policy = policy
        self._waits = waits
        resumed = checkpoint.decode(state) if state is not None else State(Draft(), 0)
        self._draft = resumed.draft
        self._end_sample = resumed.end_sample
        self._tail: tuple[Word, ...] = ()
        self._guess: tuple[str, ...] = ()
        """What was last made of the sentence with its tail."""
        self._told = Tail("", self._end_sample)

    async def start(self) -> list[Event]:
        """Go on with the words that a predecessor had and had not translated yet.

        Raises:
            DeviceError: The model failed for this stream.

        """
        return [] if self._draft.hypotheses else await self._advance()

    async def hear(self, words: Sequence[Word], tail: Sequence[Word]) -> list[Event]:
        """More words were committed, or others may be coming.

        Raises:
            InvalidRequestError: The words do not follow those before.
            DeviceError: The model failed for this stream.

        """
        self._check(words)
        self._tail = tuple(tail)
        found: list[Event] = []
        if words:
            self._end_sample = words[-1].end_sample
            self._draft = replace(self._draft, words=(*self._draft.words, *words))
            found += await self._advance()
        elif self._waits():
            # What is shown stays: there will be news of it at once.
            return []
        return found + await self._show()

    async def flush(self) -> list[Event]:
        """Translate and commit everything committed so far, as if it were a sentence.

        Raises:
            DeviceError: The model failed for this stream.

        """
        if not self._draft.words:
            return []
        return [await self._end(len(self._draft.words)), *await self._show()]

    def _check(self, words: Sequence[Word]) -> None:
        end = self._end_sample
        for word in words:
            if not (word.text and 0 <= word.first_sample <= word.end_sample <= MAX_POSITION):
                raise InvalidRequestError("source.words has a word without text or without a place")
            if word.end_sample <= end:
                raise InvalidRequestError(
                    f"source.words has a word that ends at {word.end_sample}, but {end} is known"
                )
            end = word.end_sample

    async def _advance(self) -> list[Event]:
        found: list[Event] = []
        length = 0
        texts = [word.text for word in self._draft.words]
        for more in finished(texts, self._pair.source):
            length += more
            # What follows may tell that a sentence ended earlier, where text is certain already.
            if length > self._draft.num_covered:
                found.append(await self._end(length))
                length = 0
        if self._draft.words and self._policy.keeps:
            hypothesis = await self._translate(self._draft.words)
            self._draft, piece = self._draft.hear(hypothesis, self._policy)
            if piece is not None:
                found.append(self._commit(piece))
        return found

    async def _end(self, length: int) -> Commit:
        """Finish the sentence that the first so many words make."""
        whole = replace(self._draft, words=self._draft.words[:length])
        piece = whole.end((await self._translate(whole.words)).units)
        self._draft = Draft(self._draft.words[length:])
        self._guess = ()
        return self._commit(piece)

    def _commit(self, piece: Piece) -> Commit:
        return Commit(
            piece.text,
            piece.words[0].first_sample,
            piece.words[-1].end_sample,
            self._end_sample,
            checkpoint.encode(State(self._draft, self._end_sample)),
        )

    async def _translate(self, words: Sequence[Word]) -> Hypothesis:
        text = text_of(words)
        if not text.strip():
            # Of nothing a language model makes something.
            return Hypothesis(len(words), ())
        lead = len(text) - len(text.lstrip())
        prefix = self._draft.prefix if self._translator.forces_prefix else ""
        job = Job(self._pair, text.strip(), prefix)
        made = await self._batcher.advance(job, self._seat)
        units = units_of(made.text, spaced=self._pair.target.is_spaced)
        ends = [end - lead for end in accumulate(len(word.text) for word in words)]
        return Hypothesis(len(words), units, _sources(made, units, ends))

    async def _show(self) -> list[Event]:
        """What may be read of the sentence so far, if there is news."""
        shown = ""
        if self._policy.keeps and (self._draft.words or self._tail):
            hurried = self._waits()
            if self._draft.hypotheses and (hurried or not self._tail):
                units = self._draft.hypotheses[-1].units
            elif hurried:
                units = ()
            else:
                units = (await self._translate((*self._draft.words, *self._tail))).units
            agreed = units[: max(0, common(units, self._guess) - _SHOWN_HELD_BACK)]
            self._guess = units
            shown = "".join(self._draft.continued(agreed)[len(self._draft.units) :])
        tail = Tail(shown, self._end_sample)
        if tail == self._told:
            return []
        self._told = tail
        return [tail]


def _sources(made: Translation, units: Sequence[str], ends: Sequence[int]) -> tuple[int, ...]:
    """The last word of the source that each unit comes from, by the looks of its pieces."""
    if not made.looks:
        return ()
    places = [_word_at(look, ends) for look in made.looks]
    lead = len(made.text) - len(made.text.lstrip())
    found: list[int] = []
    first = 0
    for end in accumulate(map(len, units)):
        # The first unit has a white space that the text lacks.
        last = end - len(units[0]) + len(units[0].lstrip()) + lead
        mine = [
            place
            for look, place in zip(made.looks, places, strict=True)
            if first < look.end <= last
        ]
        found.append(max(mine, default=found[-1] if found else 0))
        first = last
    return tuple(found)


def _word_at(look: Look, ends: Sequence[int]) -> int:
    return min(sum(end <= look.source for end in ends), len(ends) - 1)
