"""What a client has said since the model last had time: many messages become one."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from services.common.words import Word


@dataclass(slots=True)
class Source:
    """Words for good, and the tail behind them."""

    words: list[Word]
    tail: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything so far is to be translated."""

    flush_id: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more comes."""


Said: TypeAlias = Source | Flush | Finish


class Inbox:
    """Messages in order; words that wait are put together, and of tails only the last counts.

    So a slow model is asked less often, and never falls behind by more than one translation.
    """

    def __init__(self, max_words: int) -> None:
        """Hold at most so many words before ``put`` waits."""
        self._max_words = max_words
        self._waiting: deque[Said] = deque()
        self._changed = asyncio.Condition()

    async def put(self, said: Said) -> None:
        """Add a message, when there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < self._max_words)
            last = self._waiting[-1] if self._waiting else None
            if isinstance(said, Source) and isinstance(last, Source):
                last.words += said.words
                last.tail = said.tail
            else:
                self._waiting.append(said)
            self._changed.notify_all()

    async def get(self) -> Said:
        """The oldest message, when there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting)
            said = self._waiting.popleft()
            self._changed.notify_all()
            return said

    def waits(self) -> bool:
        """Whether anything does."""
        return bool(self._waiting)

    @property
    def _size(self) -> int:
        return sum(len(said.words) if isinstance(said, Source) else 1 for said in self._waiting)
