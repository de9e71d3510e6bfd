"""Bytes on their way between the event loop and a thread, bounded so that either side waits."""

import asyncio
import threading
from collections import deque


class AbandonedError(Exception):
    """The other side wants no more: whoever waits on the pipe stops."""


class Pipe:
    """A queue of bytes with one end on the event loop and the other on a thread.

    The ``async`` methods belong to the event loop that made the pipe, the ``_blocking`` ones to the
    thread. Either way ends with ``end`` (everything put is still read) or ``abandon`` (nothing is).
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._changed_for_loop = asyncio.Event()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._abandoned = False
        self._loop_waits = False
        self._starved = False
        """Whether the reader waits, and nothing is there."""

    async def put(self, data: bytes) -> None:
        """Append, once less than the limit is waiting to be read.

        Raises:
            AbandonedError: The reader is gone.

        """
        while True:
            with self._changed:
                if self._has_room():
                    return self._append(data)
                self._await_change()
            await self._changed_for_loop.wait()

    async def get(self) -> bytes | None:
        """The oldest bytes that were put together, or None at the end.

        Raises:
            AbandonedError: The writer is gone.

        """
        while True:
            with self._changed:
                if self._ready():
                    return self._take()
                self._starve()
                self._await_change()
            await self._changed_for_loop.wait()

    async def starved(self) -> None:
        """Return when the reader has taken everything and waits for more, or will read no more."""
        while True:
            with self._changed:
                if self._starved or self._abandoned or (self._ended and not self._chunks):
                    return
                self._await_change()
            await self._changed_for_loop.wait()

    def put_blocking(self, data: bytes) -> None:
        """Append as ``put`` does, waiting on this thread."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._append(data)

    def get_blocking(self) -> bytes | None:
        """Take as ``get`` does, waiting on this thread."""
        with self._changed:
            if not self._ready():
                self._starve()
                self._changed.wait_for(self._ready)
            return self._take()

    def end(self) -> None:
        """Nothing more will be put; what is put nevertheless is dropped."""
        with self._changed:
            self._ended = True
            self._notify()

    def abandon(self) -> None:
        """Neither side will use the pipe again: whoever waits on it, or comes to, is told."""
        with self._changed:
            self._abandoned = True
            self._chunks.clear()
            self._notify()

    @property
    def abandoned(self) -> bool:
        """Whether ``abandon`` was called."""
        return self._abandoned

    def _has_room(self) -> bool:
        return self._abandoned or self._ended or self._size < self._limit

    def _ready(self) -> bool:
        return self._abandoned or self._ended or bool(self._chunks)

    def _append(self, data: bytes) -> None:
        if self._abandoned:
            raise AbandonedError
        if data and not self._ended:
            self._chunks.append(data)
            self._size += len(data)
            self._starved = False
            self._notify()

    def _take(self) -> bytes | None:
        if self._abandoned:
            raise AbandonedError
        if not self._chunks:
            return None
        data = self._chunks.popleft()
        self._size -= len(data)
        self._notify()
        return data

    def _starve(self) -> None:
        if not self._starved:
            self._starved = True
            self._notify()

    def _await_change(self) -> None:
        # Under the lock, so that no change slips in between looking and waiting.
        self._changed_for_loop.clear()
        self._loop_waits = True

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._loop_waits:
            self._loop_waits = False
            self._loop.call_soon_threadsafe(self._changed_for_loop.set)
