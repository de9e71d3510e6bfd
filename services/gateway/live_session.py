"""A live session and its client's connections: one at a time, perhaps several in a row."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from services.common.errors import MeshError
from services.gateway.decoder import Decoder
from services.gateway.session import Session
from services.gateway.tasks import Bell, first_error

log = structlog.get_logger(__name__)


class LiveSession:
    """A session and the decoder that feeds it. ``run`` is called once."""

    def __init__(self, session: Session, decoder: Decoder) -> None:
        self.session = session
        self.received_bytes = 0
        """Audio taken in, as the client sends it."""
        self.names: dict[int, str] = {}
        """What the client calls speakers, by their numbers."""
        self.failure: Exception | None = None
        """Why the session is over; None: it is not, or everything has been said."""
        self.over = asyncio.Event()
        """Set when nothing will be added to the transcript any more."""
        self._decoder = decoder
        self._connection: asyncio.Event | None = None
        self._moved = Bell()

    async def run(self, closing: asyncio.Event) -> None:
        """Transcribe what is written until it ends, or until ``closing`` is set.

        Whatever comes of it is kept for the connection that asks, which may not be there now.
        """
        try:
            with first_error():
                async with asyncio.TaskGroup() as tasks:
                    close = tasks.create_task(self._close(closing), name="live.close")
                    await self.session.run(self._decoder.blocks())
                    close.cancel()
        except MeshError as error:
            self.failure = error
        except Exception as error:  # the boundary: a bug must not keep the end from the client
            log.exception("unexpected error", session_id=self.session.config.session_id)
            self.failure = error
        finally:
            self.over.set()
            self._decoder.abandon()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncio.Event]:
        """Be the session's connection in the ``async with`` block.

        Yields an event that is set when another connection wants to take this one's place.
        """
        while self._connection is not None:
            self._connection.set()
            await self._moved.wait()
        wanted = self._connection = asyncio.Event()
        self._moved.ring()
        try:
            yield wanted
        finally:
            self._connection = None
            self._moved.ring()

    async def abandoned(self, patience_s: float) -> None:
        """Return when the session has been without a connection for so many seconds."""
        with suppress(TimeoutError):
            while True:
                while self._connection is not None:
                    await self._moved.wait()
                async with asyncio.timeout(patience_s):
                    while self._connection is None:
                        await self._moved.wait()

    async def write(self, data: bytes) -> None:
        """Take in the next bytes of audio; waits while the session is behind."""
        await self._decoder.write(data)
        self.received_bytes += len(data)

    def close(self) -> None:
        """Nothing more will be written."""
        self._decoder.close()

    async def flush(self) -> None:
        """Return when everything written so far is decided, or the session is over."""
        await self._decoder.drained()
        await self.session.flush()

    async def _close(self, closing: asyncio.Event) -> None:
        await closing.wait()
        self.close()
