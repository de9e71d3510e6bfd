"""What it takes to add a protocol: the adapter below, and nothing else in the gateway.

ARCHITECTURE.md, "Adding a protocol", goes through it step by step.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace

import pytest
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import ClientLeftError, DeviceError, MeshError
from services.common.words import text_of
from services.gateway import app
from services.gateway.decoder import RawFormat, open_decoder
from services.gateway.documents import document, document_json
from services.gateway.gateway import Gateway
from services.gateway.live_session import LiveSession
from services.gateway.protocols.frames import accept, hang_up, send_text
from services.gateway.session import SessionConfig
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle
from services.gateway.transcript import Transcript
from tests.gateway import test_asyncapi, test_overload
from tests.gateway.contract import channels
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, running, served, spans_of, words_at
from tests.gateway.test_every_door import BAD_KEYS, refusals
from tests.gateway.test_overload import MANY
from tests.robustness.fuzz import fuzz

# services/gateway/protocols/plain.py: what is said, as plain lines. A client sends s16le PCM of
# 16 kHz, and an empty frame at the end; words that are certain come as lines of text.


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The path that is served."""

    async def plain(websocket: WebSocket) -> None:
        await serve(websocket, gateway)

    return [WebSocketRoute("/plain", plain)]


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one connection from its handshake to its end."""
    config = SessionConfig(uuid.uuid4().hex, "plain", caller=websocket.state.caller)
    audio = open_decoder(RawFormat("linear16", RATE), max_duration_s=gateway.settings.max_session_s)
    async with AsyncExitStack() as resources:
        try:
            session = await resources.enter_async_context(gateway.session(config))
        except MeshError as error:
            refusal = JSONResponse({"refused": str(error)}, 429, {"Retry-After": "1"})
            await websocket.send_denial_response(refusal)
            return
        live = LiveSession(session, await resources.enter_async_context(audio))
        with suppress(ClientLeftError):
            await accept(websocket)
            try:
                with first_error():
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(live.run(gateway.closing), name="plain.session")
                        receive = tasks.create_task(
                            take(websocket, gateway, live), name="plain.receive"
                        )
                        await show(websocket, live)
                        receive.cancel()
            except MeshError as error:
                await websocket.close(1011, str(error)[:100])
            else:
                await hang_up(websocket, restarting=gateway.closing.is_set())


async def take(websocket: WebSocket, gateway: Gateway, live: LiveSession) -> None:
    """Take in audio to its end; a client that is silent for too long has said everything."""
    throttle = Throttle(gateway.settings.max_messages_per_s)
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(gateway.settings.idle_s):
                message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise ClientLeftError
            await throttle.admit()
            if not (data := message.get("bytes")):
                break
            await live.write(data)
    live.close()


async def show(websocket: WebSocket, live: LiveSession) -> None:
    """Send lines as they come, until the session is over."""
    view, seen = Lines(live.session.transcript), -1
    while not live.over.is_set():
        if live.session.ended:
            await live.over.wait()
        seen = await live.session.changed(seen)
        for line in view.news():
            await send_text(websocket, line)
    if live.failure is not None:
        raise live.failure


class Lines:
    """The view: a transcript as messages. It knows no socket, no task and no clock."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._num_words = 0

    def news(self) -> Iterator[str]:
        """A line with the words since the last call."""
        words = self._transcript.words[self._num_words :]
        self._num_words += len(words)
        if words:
            yield text_of(words).strip()


# services/gateway/asyncapi.yaml: what is said, and how it may end.

CHANNEL = {
    "address": "/plain",
    "x-refusals": {"429": {"type": "object", "required": ["refused"]}},
    "x-close-codes": {
        "1000": "Everything was said.",
        "1011": "The session cannot go on.",
        "1012": "Everything was said, and the gateway stops.",
    },
    "messages": {"line": {"contentType": "text/plain", "payload": {"type": "string"}}},
}
OPERATION = {
    "action": "send",
    "channel": {"$ref": "#/channels/plain"},
    "messages": [{"$ref": "#/channels/plain/messages/line"}],
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name in services/gateway/app.py."""
    monkeypatch.setattr(app, "_PROTOCOLS", (*app._PROTOCOLS, SimpleNamespace(routes=routes)))


@pytest.fixture
def described(registered: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And with its part of the document."""
    monkeypatch.setitem(document("asyncapi")["channels"], "plain", CHANNEL)
    monkeypatch.setitem(document("asyncapi")["operations"], "plainSays", OPERATION)
    channels.cache_clear()
    yield
    channels.cache_clear()
    document_json.cache_clear()


def plain(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}/plain", proxy=None)


async def said(
    socket: ClientConnection, duration_s: float, *, ends: bool = True
) -> tuple[str, int]:
    """All lines, and the close code, after so much audio and perhaps its end."""
    lines: list[str] = []
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(round(10 * duration_s)):
            await socket.send(bytes(RATE // 5))
        if ends:
            await socket.send(b"")
        while True:
            lines.append(str(await socket.recv()))
    assert closed.value.rcvd is not None
    return " ".join(lines), closed.value.rcvd.code


@pytest.mark.usefixtures("described")
async def test_a_new_protocol_has_what_all_have() -> None:
    """W2, F1, F6, G1, O1."""
    words = words_at(0.5, 1.5, 3.0)
    async with (
        running(FakeVad(spans_of(words)), FakeAsr(words), asr_patience_s=0.2) as mesh,
        served(mesh.gateway) as port,
    ):
        mesh.asr.faults.once = {RATE: DeviceError("lost")}
        async with plain(port) as socket:
            assert await said(socket, 4) == ("w0 w1 w2", 1000)
        mesh.asr.faults.always = {3 * RATE: DeviceError("boom")}
        async with plain(port) as socket:
            assert await said(socket, 4) == ("w0 w1", 1011)
        mesh.asr.faults.always = {}
        mesh.asr.faults.refusals = MANY
        with pytest.raises(InvalidStatus) as refused:
            await plain(port)
        assert refused.value.response.status_code == 429
        mesh.asr.faults.refusals = 0
        async with plain(port) as socket:
            draining = asyncio.create_task(mesh.gateway.drain(1.0))
            assert await said(socket, 1, ends=False) == ("w0", 1012)
            await draining


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_new_protocol_asks_for_a_key(key: str) -> None:
    async with (
        running(FakeVad([]), FakeAsr(), keys={"alice": "a"}) as mesh,
        served(mesh.gateway) as port,
    ):
        assert (await refusals(mesh, port, BAD_KEYS[key]))["/plain"] == 401


@pytest.mark.usefixtures("described")
async def test_a_new_protocol_gets_broken_input() -> None:
    """The fuzzer knocks on every WebSocket that there is."""
    outcome = await fuzz(56, seed=1)
    assert outcome.violations == []


@pytest.mark.usefixtures("registered")
async def test_a_new_protocol_that_was_forgotten_somewhere_is_found() -> None:
    for test in (
        test_asyncapi.test_every_websocket_is_described_and_every_description_is_served,
        test_overload.test_every_door_is_among_those_that_are_tried,
    ):
        with pytest.raises(AssertionError, match="/plain"):
            await test()
    with pytest.raises(AssertionError, match="/plain: this channel is not in the document"):
        async with (
            running(FakeVad([]), FakeAsr()) as mesh,
            served(mesh.gateway) as port,
            plain(port),
        ):
            pass
