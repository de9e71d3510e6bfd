"""Samples that are announced as raw, or packets, that may come with a header all the same.

Clients read a WAV file and send what is in it, from the first byte on, or an Ogg where packets of
Opus are meant. Where a header stands, it is believed; otherwise the announcement is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeAlias

from services.gateway.audio_input import (
    AudioFormat,
    ContainerFormat,
    Decoder,
    PacketFormat,
    RawFormat,
)
from services.gateway.sniff import MAGIC_BYTES, is_container

Open: TypeAlias = Callable[[AudioFormat], AbstractAsyncContextManager[Decoder]]


@asynccontextmanager
async def open_either(announced: RawFormat | PacketFormat, open_as: Open) -> AsyncIterator[Decoder]:
    """See ``open_decoder``.

    Args:
        announced: What the bytes are without a header.
        open_as: Opens the decoder once it is known which.

    """
    async with AsyncExitStack() as resources:
        yield _HeaderDecoder(announced, open_as, resources)


class _HeaderDecoder:
    def __init__(
        self, announced: RawFormat | PacketFormat, open_as: Open, resources: AsyncExitStack
    ) -> None:
        self._announced = announced
        self._open_as = open_as
        self._resources = resources
        self._head = b""
        # Packets must not be joined: the first one has to say it all.
        self._telling_bytes = 1 if isinstance(announced, PacketFormat) else MAGIC_BYTES
        self._decoder: Decoder | None = None
        self._closed = False
        self._settled = asyncio.Event()
        """Set when nothing more has to come before it is known what the bytes are."""

    async def write(self, data: bytes) -> None:
        if self._closed:
            return
        if self._decoder is not None:
            await self._decoder.write(data)
            return
        self._head += data
        if len(self._head) >= self._telling_bytes:
            await self._settle()

    async def drained(self) -> None:
        # Bytes that are too few to say what they are have been looked at.
        if self._decoder is not None:
            await self._decoder.drained()

    def close(self) -> None:
        self._closed = True
        self._settled.set()
        if self._decoder is not None:
            self._decoder.close()

    def abandon(self) -> None:
        self._closed = True
        if self._decoder is not None:
            self._decoder.abandon()

    async def blocks(self) -> AsyncIterator[bytes]:
        await self._settled.wait()
        decoder = self._decoder
        if decoder is None:
            decoder = await self._settle()
            decoder.close()
        async for block in decoder.blocks():
            yield block

    async def _settle(self) -> Decoder:
        head, self._head = self._head, b""
        found = ContainerFormat() if is_container(head) else self._announced
        decoder = await self._resources.enter_async_context(self._open_as(found))
        self._decoder = decoder
        await decoder.write(head)
        self._settled.set()
        return decoder
