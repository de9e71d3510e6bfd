"""A client of ``/v1/realtime`` that keeps everything it is told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect

from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served, spans_of, words_at

Told = dict[str, Any]

MANUAL = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Client:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[Told] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> Told:
        async with asyncio.timeout(20):
            self.told.append(json.loads(await self.socket.recv()))
        return self.told[-1]

    async def until(self, kind: str, *, times: int = 1) -> Told:
        """Read on to a message of this kind."""
        while True:
            message = await self.next()
            times -= message["type"] == kind
            if not times:
                return message

    async def update(self, **session: Any) -> Told:
        return await self.configure("session.update", session)

    async def configure(self, kind: str, session: Told) -> Told:
        await self.send(kind, session=session)
        while True:
            message = await self.next()
            if message["type"] in {f"{kind}d", "error"}:
                return message

    async def say(
        self, duration_s: float, *, rate_hz: int = 24_000, sample_bytes: int = 2, block: int = 4800
    ) -> None:
        left = round(duration_s * rate_hz) * sample_bytes
        while left > 0:
            data = bytes(min(left, block))
            left -= len(data)
            await self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.told]

    def of(self, kind: str) -> list[Told]:
        return [message for message in self.told if message["type"] == kind]

    def transcripts(self) -> dict[str, str]:
        """The transcript of every item that is complete, which is what its deltas make."""
        made: dict[str, str] = {}
        for message in self.of(f"{TRANSCRIPTION}.delta"):
            made[message["item_id"]] = made.get(message["item_id"], "") + message["delta"]
        complete = self.of(f"{TRANSCRIPTION}.completed")
        transcripts = {message["item_id"]: message["transcript"] for message in complete}
        assert len(transcripts) == len(complete), "an item is complete once"
        for item_id, transcript in transcripts.items():
            assert made.get(item_id, "") == transcript
        return transcripts


@asynccontextmanager
async def connected(
    port: int, query: str = "?intent=transcription", *protocols: str, **options: Any
) -> AsyncIterator[Client]:
    subprotocols = [Subprotocol(name) for name in protocols] or None
    url = f"ws://127.0.0.1:{port}/v1/realtime{query}"
    async with connect(url, subprotocols=subprotocols, proxy=None, **options) as socket:
        yield Client(socket)


@asynccontextmanager
async def mesh_at_port(
    *seconds: float, vad: Callable[..., FakeVad] = FakeVad, **settings: Any
) -> AsyncIterator[tuple[Mesh, int]]:
    said = words_at(*seconds)
    async with (
        running(vad(spans_of(said)), FakeAsr(said), **settings) as mesh,
        served(mesh.gateway) as port,
    ):
        yield mesh, port
