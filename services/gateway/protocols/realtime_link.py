"""A WebSocket of ``/v1/realtime``, and the sessions that are served over it one after the other."""

import asyncio
import base64
import binascii
import json
import uuid
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common import telemetry
from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    MeshError,
    NotFoundError,
    StreamTooLongError,
)
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.audio_input import AudioFormat, RawFormat
from services.gateway.decoder import open_decoder
from services.gateway.gateway import Gateway
from services.gateway.inbox import Inbox
from services.gateway.live_session import LiveSession
from services.gateway.protocols.frames import accept, hang_up, send_text
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.protocols.realtime_view import Message
from services.gateway.session_config import SessionConfig
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle
from services.gateway.transcript import Transcript

log = structlog.get_logger(__name__)

PROTOCOL = "realtime"

Event: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[], Iterable[Message]]

_MAX_APPEND_CHARS = 15 * 1024 * 1024
_LONG_TEXT_CHARS = 1 << 18
"""Six seconds of audio. A longer text is read on a thread: other sessions would wait meanwhile."""
_REFUSED = 1008
_INTERNAL = 1011
_TRY_LATER = 1013


class View(Protocol):
    """What a client is told of the transcripts of its connection, one after the other."""

    def attach(self, transcript: Transcript, base_sample: int) -> None:
        """Go on with another transcript, which starts here."""

    def news(self) -> Iterable[Message]:
        """What has changed in the transcript."""

    def detach(self) -> Iterable[Message]:
        """The transcript is finished."""


class Dialect(Protocol):
    """One of the ways to speak over the connection."""

    @property
    def view(self) -> View:
        """What the client is told."""

    def signed(self, message: Message) -> Message:
        """A message as it is sent."""

    async def handle(self, link: "Link", event: Event) -> None:
        """Do what the client asks for.

        Raises:
            InvalidRequestError: It cannot be done; the connection goes on.
            NotFoundError: Likewise.

        """

    async def end(self, link: "Link") -> None:
        """Say what remains to be said: the client has said everything."""

    def error(self, error: Exception, event_id: str | None) -> Message:
        """What to tell the client about an error, and which of its events is at fault."""

    def failure(self, error: Exception) -> Iterable[Message]:
        """What to tell the client when the connection cannot go on."""


@dataclass(slots=True)
class _Lane:
    """A session that is admitted, and runs from its first audio on."""

    config: SessionConfig
    audio: AudioFormat
    live: LiveSession
    resources: AsyncExitStack
    task: asyncio.Task[None] | None = None

    @property
    def received_sample(self) -> int:
        """Position after the audio that has come; 0 where only a decoder can tell."""
        if not isinstance(self.audio, RawFormat):
            return 0
        frames = self.live.received_bytes // self.audio.frame_bytes
        return frames * SAMPLE_RATE_HZ // self.audio.sample_rate_hz


class Link:
    """A client's connection: one task receives, one does what was received, and one shows."""

    def __init__(self, websocket: WebSocket, gateway: Gateway) -> None:
        self.gateway = gateway
        self.dialect: Dialect
        self.over = False
        """Set by the dialect when the client is to say nothing more."""
        self._websocket = websocket
        self._settings = gateway.settings
        self._throttle = Throttle(self._settings.max_messages_per_s)
        self._inbox = Inbox[str | bytes](self._settings.inbox_bytes)
        self._turn = asyncio.Lock()
        """Two tasks send; messages that belong together stay together."""
        self._tasks = asyncio.TaskGroup()
        self._lane: _Lane | None = None
        self._admitted = False
        """Whether there has been a session."""
        self._base_sample = 0

    @property
    def base_config(self) -> SessionConfig:
        """What is the same for all sessions of the connection, but for their ids."""
        return SessionConfig("", PROTOCOL, caller=self._websocket.state.caller)

    @property
    def position(self) -> int:
        """Position after the audio that has come, on the clock of the connection."""
        return self._base_sample + (self._lane.received_sample if self._lane else 0)

    @property
    def listening(self) -> bool:
        """Whether there is a session that audio can be fed to."""
        return self._lane is not None

    def checked(self, config: SessionConfig) -> SessionConfig:
        """The same, with the name by which its model is known, if there can be such a session.

        Raises:
            InvalidRequestError: The model lacks the language or the task.
            NotFoundError: No pool serves the model.

        """
        _, info = self.gateway.pools.choose(config.model)
        info.check(config.language_code, config.task)
        return replace(config, model=info.name)

    async def open(self, config: SessionConfig, audio: AudioFormat) -> None:
        """Have such a session. Another one that there is ends first, with all that was said.

        Its slot is free for no moment in between: nothing is waited for.

        Raises:
            MeshError: It cannot be had.

        """
        if self._lane and (self._lane.config, self._lane.audio) == (config, audio):
            return
        await self.finish()
        async with AsyncExitStack() as resources:
            named = replace(config, session_id=uuid.uuid4().hex)
            session = await resources.enter_async_context(
                self.gateway.session(named, admitted=self._admitted)
            )
            self._admitted = True
            decoder = await resources.enter_async_context(
                open_decoder(audio, max_duration_s=self._settings.max_session_s)
            )
            live = LiveSession(session, decoder)
            self._lane = _Lane(config, audio, live, resources.pop_all())
        self.dialect.view.attach(session.transcript, self._base_sample)

    async def feed(self, data: bytes) -> None:
        """Take in audio; waits while the session is behind."""
        lane = self._lane
        assert lane is not None
        if lane.task is None:
            lane.task = self._tasks.create_task(self._run(lane.live), name="realtime.session")
        await lane.live.write(data)

    async def flush(self) -> bool:
        """Return when everything received is decided, or whether it never will be."""
        if self._lane is None or self._lane.task is None:
            return True
        await self._lane.live.flush()
        return self._lane.live.failure is None

    async def finish(self) -> None:
        """End the session, if there is one, after all that was said in it.

        Raises:
            MeshError: It has failed.

        """
        lane, self._lane = self._lane, None
        if lane is None:
            return
        async with lane.resources:
            self._base_sample += lane.received_sample
            if lane.task is not None:
                lane.live.close()
                await lane.task
                await self.say(self.dialect.view.detach)

    async def say(self, make: Say) -> None:
        """Send some messages, with nothing in between."""
        async with self._turn:
            for message in make():
                await self._send(self.dialect.signed(message))

    async def serve(self, greeting: Message) -> None:
        """Serve the client from its handshake to the end.

        Args:
            greeting: The first message.

        Raises:
            ClientLeftError: It left.

        """
        await accept(self._websocket)
        try:
            with first_error():
                async with self._tasks:
                    receive = self._tasks.create_task(self._receive(), name="realtime.receive")
                    close = self._tasks.create_task(self._close(), name="realtime.close")
                    await self.say(lambda: [greeting])
                    await self._obey()
                    await self.dialect.end(self)
                    receive.cancel()
                    close.cancel()
        except MeshError as error:
            await self._fail(error, _closing_code(error))
        except ClientLeftError:
            raise
        except Exception as error:  # the boundary: a bug must not keep the end from the client
            log.exception("unexpected error")
            await self._fail(error, _INTERNAL)
        else:
            await hang_up(self._websocket, restarting=self.gateway.closing.is_set())

    async def aclose(self) -> None:
        """Let go of the session, whatever became of it."""
        if self._lane is not None:
            await self._lane.resources.aclose()

    async def _fail(self, error: Exception, code: int) -> None:
        await self.say(lambda: self.dialect.failure(error))
        with suppress(WebSocketDisconnect):
            await self._websocket.close(code)

    async def _close(self) -> None:
        """End the connection when the gateway has to stop."""
        await self.gateway.closing.wait()
        self._inbox.end()

    async def _receive(self) -> None:
        """Take in what the client says; when it has been silent for too long, that was all.

        Raises:
            ClientLeftError: It left.

        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.idle_s) as idle:
                while True:
                    data = await self._next_frame()
                    idle.reschedule(None)  # It is the client that waits now.
                    await self._inbox.put(data)
                    idle.reschedule(loop.time() + self._settings.idle_s)
        except TimeoutError:
            log.info("client idle")
        self._inbox.end()
        while True:
            await self._next_frame()

    async def _next_frame(self) -> str | bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientLeftError
        await self._throttle.admit()
        data = message.get("bytes")
        return str(message["text"]) if data is None else bytes(data)

    async def _obey(self) -> None:
        async for data in self._inbox.blocks():
            event_id: str | None = None
            try:
                event = await _read(data)
                event_id = event.get("event_id")
                await self.dialect.handle(self, event)
            except (InvalidRequestError, NotFoundError) as error:
                await self._complain(error, event_id)
            if self.over:
                return

    async def _complain(self, error: Exception, event_id: str | None) -> None:
        await self.say(lambda: [self.dialect.error(error, event_id)])

    async def _run(self, live: LiveSession) -> None:
        """Run a session, and send what changes in its transcript until it is over."""
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(live.run(self.gateway.closing), name="realtime.run")
                seen = -1
                while not live.over.is_set():
                    if live.session.ended:
                        await live.over.wait()
                    seen = await live.session.changed(seen)
                    await self.say(self.dialect.view.news)
        if live.failure is not None:
            raise live.failure

    async def _send(self, message: Message) -> None:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        await send_text(self._websocket, text)
        telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
        telemetry.BYTES_SENT.labels(PROTOCOL).inc(len(text.encode()))


async def _read(data: str | bytes) -> Event:
    """What the client says. Audio in a binary frame is an append too; ``audio`` holds its bytes.

    Raises:
        RefusedError: It is no event.

    """
    if isinstance(data, bytes):
        return {"type": "input_audio_buffer.append", "audio": data}
    if len(data) > _LONG_TEXT_CHARS:
        return await asyncio.to_thread(_parse, data)
    return _parse(data)


def _parse(text: str) -> Event:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("the message is not JSON", "invalid_json") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise _invalid("the message is not an object with a type", "invalid_event")
    if not isinstance(event.get("event_id"), str):
        event.pop("event_id", None)
    if event["type"] == "input_audio_buffer.append":
        event["audio"] = _audio(event.get("audio"))
    return event


def _audio(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise RefusedError("audio is missing", param="audio", code="missing_required_parameter")
    if len(encoded) > _MAX_APPEND_CHARS:
        raise RefusedError("audio is longer than 15 MiB", param="audio", code="invalid_value")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError("audio is not base64", param="audio", code="invalid_value") from error


def _invalid(message: str, code: str) -> RefusedError:
    return RefusedError(message, param=None, code=code)


def _closing_code(error: MeshError) -> int:
    match error:
        case StreamTooLongError() | InvalidRequestError() | NotFoundError():
            return _REFUSED
    return _TRY_LATER
