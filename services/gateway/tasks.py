"""How the tasks of one session wait for one another and fail together."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.rpc import leaves


class Bell:
    """Wakes everybody who waits; whoever comes later waits for the next ring.

    Look at what you wait for first, and call ``wait`` with no ``await`` in between.
    """

    def __init__(self) -> None:
        self._awaited: asyncio.Event | None = None
        """The next ring; None: nobody waits for it."""

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    async def wait(self) -> None:
        """Sleep until the next ring."""
        if self._awaited is None:
            self._awaited = asyncio.Event()
        await self._awaited.wait()


@contextmanager
def first_error() -> Iterator[None]:
    """Let a task group inside fail with the first of its errors instead of with a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise next(leaves(group)) from None
