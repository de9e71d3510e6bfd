"""The ways in which clients behave: well, badly, and not at all."""

import asyncio
import random
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import grpc.aio
import httpx
from websockets.exceptions import InvalidStatus

from bench import asr_client, ways
from bench.converse import FRAME_S, converse
from bench.converse_socket import SocketStub
from bench.corpus import BYTES_PER_S, Clip, Recording
from bench.mesh import Served
from services.cli import resuming
from services.common.channel import open_channel
from services.common.timeline import SAMPLE_RATE_HZ
from tests.robustness.doors import Doors, Mutator
from tests.robustness.proxy import Proxy
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

_UPLOAD_S = 120.0
_READING_S = 0.5
"""How long a slow reader takes over a message."""
_MOST_CUTS = 3
_PAUSES_S = (2.0, 8.0)
"""The shortest and the longest time for which a client sends nothing."""

_REFUSALS = ("RESOURCE_EXHAUSTED", "HTTP 429", "HTTP 503")
_CROWD_S = 60.0
"""In which a mesh is full, at the latest."""
_RETRY_S = 0.5

Stub: TypeAlias = "rpc.GatewayServiceStub"
Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseResponse]"
Behaviour: TypeAlias = "Callable[[Client], Awaitable[str]]"
"""Holds one session and says how it ended, or raises what it should not have ended with."""


class UnexpectedEndError(Exception):
    """A session ended otherwise than its client may expect."""


@dataclass(frozen=True, slots=True)
class Client:
    """What one client has: the mesh, something to say, and its own chance."""

    mesh: Served
    clip: Clip
    pace: float
    """Seconds of audio in a second."""
    rng: random.Random

    @property
    def duration_s(self) -> float:
        """How long it speaks."""
        return self.clip.audio_s / self.pace

    @property
    def socket_url(self) -> str:
        """Of ``WS /v1/converse``."""
        return f"ws{self.mesh.url.removeprefix('http')}/v1/converse"

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Stub]:
        """``Converse`` over gRPC or over a WebSocket, as chance has it."""
        if self.rng.random() < 0.5:
            yield _over_socket(self.socket_url)
        else:
            async with open_channel(self.mesh.grpc_target) as channel:
                yield rpc.GatewayServiceStub(channel)

    @asynccontextmanager
    async def breakable(self) -> AsyncIterator[tuple["Client", Callable[[], None]]]:
        """The same client behind proxies, and what cuts all its connections without a goodbye."""
        http, grpc_ = Proxy(_port(self.mesh.url)), Proxy(_port(self.mesh.grpc_target))

        def cut() -> None:
            http.cut()
            grpc_.cut()

        async with http.listening() as port, grpc_.listening() as grpc_port:
            mesh = replace(
                self.mesh, url=f"http://127.0.0.1:{port}", grpc_target=f"127.0.0.1:{grpc_port}"
            )
            yield replace(self, mesh=mesh), cut


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _over_socket(url: str, *, reading_s: float = 0.0) -> Stub:
    # Of a stub, ``resuming`` uses ``Converse`` alone.
    return cast("rpc.GatewayServiceStub", SocketStub(url, reading_s=reading_s))


async def over_grpc(client: Client) -> str:
    """``Converse`` to the end."""
    heard = await converse(client.mesh.grpc_target, client.clip, pace=client.pace)
    if heard.failure:
        raise UnexpectedEndError(heard.failure)
    return _finished(len(heard.words))


async def over_asr(client: Client) -> str:
    """``WS /asr`` to the end, in either of its modes."""
    last = ""

    def keep(_sent_s: float, message: str) -> None:
        nonlocal last
        if '"error"' in message:
            raise UnexpectedEndError(message)
        last = message

    watched = await asr_client.play(
        client.mesh.ws_url,
        client.clip.pcm,
        language_code=client.clip.language_code,
        speed=client.pace,
        mode=client.rng.choice(("diff", "full")),
        on_message=keep,
    )
    if "ready_to_stop" not in last:
        raise UnexpectedEndError("closed without ready_to_stop")
    return _finished(len(watched.text.split()))


async def over_socket(client: Client) -> str:
    """``WS /v1/converse`` to the end."""
    return await _speak(_over_socket(client.socket_url), client)


async def cut_and_resumed(client: Client) -> str:
    """``Converse`` whose connection is cut, and resumed, over gRPC or a WebSocket."""
    async with client.breakable() as (behind, cut), behind.stub() as stub:

        async def cut_some_times() -> None:
            for _ in range(client.rng.randint(1, _MOST_CUTS)):
                await asyncio.sleep(client.rng.uniform(0.2, 0.5) * client.duration_s)
                cut()

        cutting = asyncio.create_task(cut_some_times(), name="clients.cut")
        try:
            return await _speak(stub, client)
        finally:
            cutting.cancel()


async def pausing(client: Client) -> str:
    """``Converse`` that sends nothing for some seconds, over gRPC or a WebSocket."""
    async with client.stub() as stub:
        return await _speak(stub, client, pause_s=client.rng.uniform(*_PAUSES_S))


async def reading_slowly(client: Client) -> str:
    """``Converse`` over a WebSocket whose messages are not read as they come."""
    return await _speak(_over_socket(client.socket_url, reading_s=_READING_S), client)


async def leaving(client: Client) -> str:
    """A client at any door that is gone in mid-sentence, without a word."""
    speak = client.rng.choice((over_grpc, over_asr, over_socket))
    async with client.breakable() as (behind, cut):
        speaking = asyncio.create_task(speak(behind), name="clients.leave")
        await asyncio.wait((speaking,), timeout=client.rng.uniform(0.3, 0.9) * client.duration_s)
        if speaking.done():
            raise UnexpectedEndError(f"over before it was left: {speaking.result()}")
        cut()
        speaking.cancel()
        await asyncio.wait((speaking,))
        if not speaking.cancelled():
            speaking.exception()  # the cut may have come first
    return "left"


async def sending_what_is_broken(client: Client) -> str:
    """Mutated messages and files that are no audio, at any door: refused with a reason."""
    async with (
        open_channel(client.mesh.grpc_target) as channel,
        httpx.AsyncClient(
            base_url=client.mesh.url, trust_env=False, verify=False, timeout=_UPLOAD_S
        ) as http,
    ):
        door = client.rng.choice(Doors(_port(client.mesh.url), channel, http).all)
        end = await door(Mutator(client.rng))
    if end.startswith("BUG"):
        raise UnexpectedEndError(end)
    return end


async def uploading(client: Client) -> str:
    """A WAV file to ``POST /v1/audio/transcriptions``."""
    with tempfile.TemporaryDirectory(prefix="voxmesh-soak-") as folder:
        path = Path(folder) / "clip.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
            file.writeframes(client.clip.pcm)
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=_UPLOAD_S) as http:
            recording = Recording(client.clip.id, path, "", client.clip.language_code)
            transcribed = await ways.upload(client.mesh, http, recording)
    return _finished(len(transcribed.words))


async def knocking(client: Client) -> str:
    """A client at any door of a mesh that is full: refused, and told to come again."""
    knock = client.rng.choice((over_grpc, over_asr, over_socket, uploading))
    try:
        end = await knock(client)
    except UnexpectedEndError as error:
        end = str(error).partition(":")[0]
    except grpc.aio.AioRpcError as error:
        end = error.code().name
    except InvalidStatus as error:
        end = f"HTTP {error.response.status_code}"
    except httpx.HTTPStatusError as error:
        end = f"HTTP {error.response.status_code}"
    if end not in _REFUSALS:
        raise UnexpectedEndError(f"not refused: {end}")
    return end


@asynccontextmanager
async def crowd(mesh: Served, number: int) -> AsyncIterator[None]:
    """So many sessions that are open and say nothing.

    Raises:
        grpc.aio.AioRpcError: One was refused for good.
        TimeoutError: One was refused for too long.

    """
    async with open_channel(mesh.grpc_target) as channel:
        stub = rpc.GatewayServiceStub(channel)
        async with asyncio.timeout(_CROWD_S):
            calls = [await _let_in(stub) for _ in range(number)]
        yield
        for call in calls:
            await call.write(pb.ConverseRequest(finish=pb.Finish()))
            while await call.read() is not grpc.aio.EOF:
                pass


async def _let_in(stub: Stub) -> Call:
    """A session, as soon as there is room: for some seconds a silent one, too, passes for more."""
    while True:
        call: Call = stub.Converse()
        await call.write(pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16)))
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(_RETRY_S)
        else:
            return call


async def _speak(stub: Stub, client: Client, *, pause_s: float = 0.0) -> str:
    """Hold a session that is resumed whenever its connection breaks, to its end."""
    num_words = 0
    last = ""

    def hear(answer: pb.ConverseResponse) -> None:
        nonlocal num_words, last
        last = answer.WhichOneof("event") or ""
        if last == "captions":
            if answer.captions.first_word != num_words:
                raise UnexpectedEndError(f"word {answer.captions.first_word} after {num_words}")
            num_words += len(answer.captions.words)

    outbox = resuming.Outbox()
    opening = pb.Open(encoding=pb.ENCODING_LINEAR16, language_code=client.clip.language_code)
    playing = asyncio.create_task(_play(client, outbox, pause_s), name="clients.play")
    try:
        await resuming.converse(stub, opening, outbox, hear)
    finally:
        playing.cancel()
    if last != "finished":
        raise UnexpectedEndError(f"ended after {last}")
    return _finished(num_words)


async def _play(client: Client, outbox: resuming.Outbox, pause_s: float) -> None:
    pcm = client.clip.pcm
    size = round(FRAME_S * BYTES_PER_S)
    pause_at = client.rng.uniform(0.2, 0.8) * len(pcm)
    due = time.monotonic()
    for start in range(0, len(pcm), size):
        due += FRAME_S / client.pace
        if start <= pause_at < start + size:
            due += pause_s
        await asyncio.sleep(due - time.monotonic())
        outbox.add(pcm[start : start + size])
    outbox.end()


def _finished(num_words: int) -> str:
    if not num_words:
        raise UnexpectedEndError("finished, and nothing was heard")
    return "finished"


BEHAVIOURS: Mapping[str, Behaviour] = {
    "`Converse` to the end": over_grpc,
    "`/asr` to the end": over_asr,
    "`/v1/converse` to the end": over_socket,
    "cut and resumed": cut_and_resumed,
    "pauses": pausing,
    "reads slowly": reading_slowly,
    "leaves without a word": leaving,
    "sends what is broken": sending_what_is_broken,
    "uploads": uploading,
}
"""What clients do while there is room, by name."""
