"""What a client has sent and the session has not taken yet."""

from collections import deque
from collections.abc import AsyncIterator, Sized
from typing import Generic, TypeVar

from services.gateway.tasks import Bell

Message = TypeVar("Message", bound=Sized)


class Inbox(Generic[Message]):
    """A queue of bytes or texts, bounded by their length. One task puts, one reads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._blocks: deque[Message] = deque()
        self._size = 0
        self._ended = False
        self._bell = Bell()

    async def put(self, data: Message) -> None:
        """Append, once less than the limit is waiting to be read; after ``end``, do nothing."""
        while self._size >= self._limit:
            await self._bell.wait()
        if self._ended:
            return
        self._blocks.append(data)
        self._size += len(data)
        self._bell.ring()

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._bell.ring()

    async def blocks(self) -> AsyncIterator[Message]:
        """What was put, in order, to the end."""
        while True:
            while self._blocks:
                data = self._blocks.popleft()
                self._size -= len(data)
                self._bell.ring()
                yield data
            if self._ended:
                return
            await self._bell.wait()
