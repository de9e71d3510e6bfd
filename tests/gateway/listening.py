"""A client of ``/v1/listen``, for tests of what it sees."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.common.words import Word
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, Mesh, running, served, spans_of, words_at

RAW = "encoding=linear16&sample_rate=16000&channels=1"
CLOSE_STREAM = '{"type":"CloseStream"}'
FINALIZE = '{"type":"Finalize"}'
KEEP_ALIVE = '{"type":"KeepAlive"}'

Message = dict[str, Any]


def with_text(word: Word, text: str) -> Word:
    """The same word, otherwise written."""
    return Word(text, word.first_sample, word.end_sample)


@asynccontextmanager
async def mesh_at_port(
    *starts_s: float, words: Iterable[Word] | None = None, **settings: Any
) -> AsyncIterator[tuple[Mesh, int]]:
    """A gateway behind which somebody says a word at these times."""
    said = words_at(*starts_s) if words is None else list(words)
    async with (
        running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh,
        served(mesh.gateway) as port,
    ):
        yield mesh, port


class Listener:
    """What a client of the live protocol does, and what it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []

    async def say(self, duration_s: float, *, width: int = 2, pause_s: float = 0.0) -> None:
        """Send so much audio of which the scripted stages know what is said in it."""
        for _ in range(round(duration_s * 10)):
            await self.socket.send(bytes(width * RATE // 10))
            await asyncio.sleep(pause_s)

    async def next(self) -> Message:
        """The next message."""
        async with asyncio.timeout(20):
            self.messages.append(json.loads(await self.socket.recv()))
        return self.messages[-1]

    async def until(self, **wanted: object) -> Message:
        """The next message that has these values."""
        while True:
            message = await self.next()
            if wanted.items() <= message.items():
                return message

    async def finish(self, last: str | bytes = CLOSE_STREAM) -> list[Message]:
        """End the stream; everything that was told."""
        await self.socket.send(last)
        await self.closed()
        return self.messages

    async def closed(self) -> tuple[int, str]:
        """Read to the end of the connection; its code and reason."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, closed.rcvd.reason

    def of(self, kind: str) -> list[Message]:
        """The messages of a type."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def finals(self) -> list[Message]:
        """The results that are final."""
        return [message for message in self.of("Results") if message["is_final"]]

    @property
    def text(self) -> str:
        """What was said, of the finals."""
        return " ".join(filter(None, map(text_of, self.finals)))


def text_of(message: Message) -> str:
    """The transcript of a result."""
    return str(message["channel"]["alternatives"][0]["transcript"])


@asynccontextmanager
async def listener(port: int, query: str = RAW, **options: Any) -> AsyncIterator[Listener]:
    """Connect to ``/v1/listen``."""
    url = f"ws://127.0.0.1:{port}/v1/listen?{query}"
    async with connect(url, proxy=None, **options) as socket:
        yield Listener(socket)
