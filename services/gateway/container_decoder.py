"""Containers -> 16 kHz mono s16 while they arrive: a thread between two bounded pipes."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.audio_input import ContainerFormat, Decoder
from services.gateway.container import Limits, decode
from services.gateway.pipe import AbandonedError, Pipe

_PENDING_INPUT_BYTES = 1 << 18
"""Input that may wait: a minute of Opus, so that a burst does not stop the client at once."""
_PENDING_OUTPUT_BYTES = 10 * SAMPLE_RATE_HZ * 2
"""Samples that may wait: 10 s, so that the thread has work while the event loop has other."""
_STOP_S = 5.0
"""How long the thread may take to notice that nobody waits for it; it looks at every read."""


@asynccontextmanager
async def open_container(
    audio_format: ContainerFormat, *, max_duration_s: float, max_spool_bytes: int
) -> AsyncIterator[Decoder]:
    """See ``open_decoder``."""
    decoder = _ContainerDecoder(Limits(max_duration_s, max_spool_bytes), audio_format.hint)
    try:
        yield decoder
    finally:
        await decoder.stop()


class _ContainerDecoder:
    def __init__(self, limits: Limits, hint: str | None) -> None:
        self._input = Pipe(_PENDING_INPUT_BYTES)
        self._output = Pipe(_PENDING_OUTPUT_BYTES)
        # A thread of its own: in a pool shared by all, live streams would take every place.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway.decode")
        self._done = asyncio.get_running_loop().run_in_executor(
            self._thread, self._run, limits, hint
        )

    def _run(self, limits: Limits, hint: str | None) -> None:
        try:
            for block in decode(self._read_next, limits, hint=hint):
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
