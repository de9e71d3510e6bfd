"""Containers and packets -> 16 kHz s16 while they arrive: a thread between two bounded pipes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import BinaryIO, TypeAlias

from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway import container, packets
from services.gateway.audio_input import ContainerFormat, Decoder, PacketFormat
from services.gateway.byte_source import ReadNext
from services.gateway.pipe import AbandonedError, Pipe
from services.gateway.resampler import Limits

Decode: TypeAlias = Callable[[ReadNext], Iterator[bytes]]
"""Turns bytes as they are read into blocks of samples, on the thread that calls it."""

_PENDING_INPUT_BYTES = 1 << 18
"""Input that may wait: a minute of Opus, so that a burst does not stop the client at once."""
_PENDING_OUTPUT_BYTES = 10 * SAMPLE_RATE_HZ * 2
"""Samples that may wait: 10 s, so that the thread has work while the event loop has other."""
_READ_BYTES = 1 << 16
_STOP_S = 5.0
"""How long the thread may take to notice that nobody waits for it; it looks at every read."""


def open_container(
    audio_format: ContainerFormat, *, max_duration_s: float, max_spool_bytes: int
) -> AbstractAsyncContextManager[Decoder]:
    """See ``open_decoder``."""
    limits = Limits(max_duration_s, max_spool_bytes)
    return _decoding(
        partial(container.decode, limits=limits, hint=audio_format.hint, apart=audio_format.apart)
    )


def open_packets(
    audio_format: PacketFormat, *, max_duration_s: float
) -> AbstractAsyncContextManager[Decoder]:
    """See ``open_decoder``."""
    limits = Limits(max_duration_s, 0)
    return _decoding(partial(packets.decode, audio_format=audio_format, limits=limits))


async def count_channels(
    audio_format: ContainerFormat, file: BinaryIO, *, max_duration_s: float, max_spool_bytes: int
) -> int:
    """How many channels a file has; it is read from its start, and left there.

    Raises:
        InvalidRequestError: It is not audio, or nothing of it can be decoded.
        StreamTooLongError: It says itself that it is longer than allowed.

    """
    limits = Limits(max_duration_s, max_spool_bytes)

    def count() -> int:
        file.seek(0)
        try:
            return container.channels_of(
                lambda: file.read(_READ_BYTES) or None, limits, hint=audio_format.hint
            )
        finally:
            file.seek(0)

    return await asyncio.to_thread(count)


@asynccontextmanager
async def _decoding(decode: Decode) -> AsyncIterator[Decoder]:
    decoder = _ThreadDecoder(decode)
    try:
        yield decoder
    finally:
        await decoder.stop()


class _ThreadDecoder:
    def __init__(self, decode: Decode) -> None:
        self._input = Pipe(_PENDING_INPUT_BYTES)
        self._output = Pipe(_PENDING_OUTPUT_BYTES)
        # A thread of its own: in a pool shared by all, live streams would take every place.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway.decode")
        self._done = asyncio.get_running_loop().run_in_executor(self._thread, self._run, decode)

    def _run(self, decode: Decode) -> None:
        try:
            for block in decode(self._read_next):
                self._output.put_blocking(block)
        except AbandonedError:
            return
        finally:
            self._input.abandon()
            self._output.end()

    def _read_next(self) -> bytes | None:
        try:
            return self._input.get_blocking()
        except AbandonedError:
            # PyAV writes what is raised below FFmpeg to stderr if FFmpeg reads on.
            return None

    async def write(self, data: bytes) -> None:
        try:
            await self._input.put(data)
        except AbandonedError:
            return

    async def drained(self) -> None:
        await self._input.starved()
        await self._output.starved()

    def close(self) -> None:
        self._input.end()

    def abandon(self) -> None:
        # In this order: to the thread, the input ends here, and what it says to that is not heard.
        self._output.abandon()
        self._input.abandon()

    async def blocks(self) -> AsyncIterator[bytes]:
        while (block := await self._output.get()) is not None:
            yield block
        await self._done

    async def stop(self) -> None:
        self.abandon()
        done, _ = await asyncio.wait([self._done], timeout=_STOP_S)
        self._thread.shutdown(wait=bool(done))
        for future in done:
            future.exception()  # Whoever read the blocks has been told.
