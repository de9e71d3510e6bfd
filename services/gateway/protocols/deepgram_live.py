"""``/v1/listen`` over a WebSocket: Deepgram's live transcription."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common import telemetry
from services.common.errors import ClientLeftError, MeshError
from services.gateway.decoder import EmptyAudioError, RawFormat, open_decoder
from services.gateway.gateway import Gateway
from services.gateway.inbox import Inbox
from services.gateway.lanes import Splitter
from services.gateway.live_session import LiveSession
from services.gateway.protocols.deepgram_errors import ClosedError, closing, idle, refusal
from services.gateway.protocols.deepgram_frames import (
    CloseStream,
    Command,
    Configure,
    Finalize,
    KeepAlive,
    Malformed,
    read_data,
    read_text,
)
from services.gateway.protocols.deepgram_metadata import Request
from services.gateway.protocols.deepgram_query import Wish, read_wish
from services.gateway.protocols.deepgram_view import Manner, View
from services.gateway.protocols.deepgram_words import Body
from services.gateway.protocols.frames import accept, hang_up, send_text
from services.gateway.protocols.recordings import channel_config
from services.gateway.session import SessionConfig
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle

PROTOCOL = "deepgram"

_UPDATE_S = 0.05
"""Between two rounds of messages about a lane, at least."""
_ECHO_CHARS = 1000
"""So much of a text that means nothing is sent back."""


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one connection from its handshake to its end."""
    request_id = str(uuid.uuid4())
    async with AsyncExitStack() as resources:
        try:
            wish = read_wish(
                websocket.query_params,
                live=True,
                models=[info.name for info in gateway.models()],
                language=gateway.settings.language,
            )
            lanes = await _open(gateway, wish, websocket.state.caller, request_id, resources)
        except MeshError as error:
            await websocket.send_denial_response(refusal(error, request_id))
            return
        with suppress(ClientLeftError):
            await accept(websocket, {"dg-request-id": request_id})
            connection = _Connection(websocket, gateway, wish, lanes, request_id)
            try:
                with first_error():
                    await connection.serve()
            except ClosedError as closed:
                with suppress(WebSocketDisconnect):
                    await websocket.close(closed.code, closed.reason)
            else:
                await resources.aclose()
                await hang_up(websocket, restarting=gateway.closing.is_set())


async def _open(
    gateway: Gateway, wish: Wish, caller: str, request_id: str, resources: AsyncExitStack
) -> list[LiveSession]:
    """A session for every channel that is transcribed apart."""
    audio_format = wish.audio_format
    if wish.lanes > 1 and isinstance(audio_format, RawFormat):
        audio_format = replace(audio_format, channels=1)
    config = SessionConfig(
        session_id=request_id,
        protocol=PROTOCOL,
        caller=caller,
        language_code=wish.language_code,
        model=wish.model,
        hotwords=wish.hotwords,
        diarization=wish.diarization,
    )
    lanes = []
    for number in range(wish.lanes):
        session = await resources.enter_async_context(
            gateway.session(channel_config(config, number))
        )
        decoder = await resources.enter_async_context(
            open_decoder(
                audio_format,
                max_duration_s=gateway.settings.max_session_s,
                may_have_header=wish.lanes == 1,
            )
        )
        lanes.append(LiveSession(session, decoder))
    return lanes


class _Connection:
    """A client and its lanes: one task receives, one feeds, and two serve each lane."""

    def __init__(
        self,
        websocket: WebSocket,
        gateway: Gateway,
        wish: Wish,
        lanes: Sequence[LiveSession],
        request_id: str,
    ) -> None:
        self._websocket = websocket
        self._gateway = gateway
        self._wish = wish
        self._lanes = lanes
        config = lanes[0].session.config
        _, info = gateway.pools.choose(config.model)
        self._request = Request(request_id, info, wish.extra)
        manner = Manner(
            wish.style,
            interim_results=wish.interim_results,
            vad_events=wish.vad_events,
            endpointing=wish.endpointing_samples,
            utterance_end=wish.utterance_end_samples,
            queries=wish.queries,
        )
        only = info.language_codes[0] if len(info.language_codes) == 1 else ""
        self._views = [
            View(
                lane.session.transcript,
                manner,
                language_code=config.language_code or only,
                channel=(number, len(lanes)),
                metadata=self._request.result_metadata(),
            )
            for number, lane in enumerate(lanes)
        ]
        self._throttle = Throttle(gateway.settings.max_messages_per_s)
        self._inbox = Inbox[bytes | Finalize](gateway.settings.inbox_bytes)
        self._splitter = None
        if len(lanes) > 1 and isinstance(wish.audio_format, RawFormat):
            self._splitter = Splitter(wish.audio_format)
        self._sha256 = hashlib.sha256()
        self._turn = asyncio.Lock()
        """Several tasks send; what a view says is sent in the order in which it says it."""

    async def serve(self) -> None:
        """Serve the client until everything has been said.

        Raises:
            ClientLeftError: It left before.
            ClosedError: The connection is to be closed before.

        """
        async with asyncio.TaskGroup() as tasks:
            receive = tasks.create_task(self._receive(), name="deepgram.receive")
            feed = tasks.create_task(self._feed(), name="deepgram.feed")
            for lane in self._lanes:
                tasks.create_task(lane.run(self._gateway.closing), name="deepgram.session")
            shown = [
                tasks.create_task(self._show(lane, view), name="deepgram.show")
                for lane, view in zip(self._lanes, self._views, strict=True)
            ]
            await asyncio.wait(shown)
            # What this says depends on what the feeder has said: it must not speak in between.
            feed.cancel()
            receive.cancel()
        for view in self._views:
            await self._send(view.last())
        await self._send([self._metadata()])

    async def _receive(self) -> None:
        """Take in audio and commands to the end of the audio, then wait for the client to leave.

        Raises:
            ClientLeftError: It left.
            ClosedError: It said nothing for too long.

        """
        loop = asyncio.get_running_loop()
        idle_s = self._gateway.settings.listen_idle_s
        try:
            async with asyncio.timeout(idle_s) as waiting:
                while not isinstance(message := await self._message(), CloseStream):
                    waiting.reschedule(None)  # It is the client that waits now.
                    await self._take(message)
                    waiting.reschedule(loop.time() + idle_s)
        except TimeoutError:
            raise idle() from None
        self._inbox.end()
        while True:
            await self._message()

    async def _message(self) -> bytes | Command:
        """What the client says next.

        Raises:
            ClientLeftError: It left.

        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientLeftError
        await self._throttle.admit()
        data = message.get("bytes")
        return read_text(message["text"]) if data is None else read_data(bytes(data))

    async def _take(self, message: bytes | Command) -> None:
        """Keep what has its place in the audio, and answer what has none."""
        match message:
            case bytes():
                self._sha256.update(message)
                await self._inbox.put(message)
            case Finalize(channel=channel) if channel is None or 0 <= channel < len(self._lanes):
                await self._inbox.put(message)
            case Finalize(text=text):
                await self._send([_schema_error("there is no such channel", text)])
            case Malformed(description=description, text=text):
                await self._send([_schema_error(description, text)])
            case Configure():
                await self._send([self._configured(message)])
            case KeepAlive() | CloseStream():
                pass

    def _configured(self, command: Configure) -> Body:
        answer: Body = {"request_id": self._request.request_id}
        if command.keyterms is None or set(command.keyterms) == set(self._wish.hotwords):
            if command.keyterms is not None:
                answer["keyterms"] = list(command.keyterms)
            return {"type": "ConfigureSuccess", **answer}
        return {
            "type": "ConfigureFailure",
            **answer,
            "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
            "description": "keyterms are chosen when the stream is opened",
        }

    async def _feed(self) -> None:
        """Pass on what was received, each command when all audio before it has been taken in."""
        async for message in self._inbox.blocks():
            if isinstance(message, Finalize):
                await self._finalize(message)
                continue
            for lane, data in zip(self._lanes, self._parts(message), strict=True):
                await lane.write(data)
        for lane, view in zip(self._lanes, self._views, strict=True):
            view.waits = True
            lane.close()

    def _parts(self, data: bytes) -> list[bytes]:
        """The audio of each lane."""
        return [data] if self._splitter is None else self._splitter.split(data)

    async def _finalize(self, command: Finalize) -> None:
        chosen = [
            (lane, view)
            for number, (lane, view) in enumerate(zip(self._lanes, self._views, strict=True))
            if command.channel in {None, number}
        ]
        for _, view in chosen:
            view.waits = True
        await asyncio.gather(*(lane.flush() for lane, _ in chosen))
        for lane, view in chosen:
            if lane.failure is None:
                async with self._turn:
                    await self._write(view.finalized())
            view.waits = False

    async def _show(self, lane: LiveSession, view: View) -> None:
        """Send what changes, as it changes, until the session is over."""
        seen = -1
        while not lane.over.is_set():
            if lane.session.ended:
                await lane.over.wait()
                break
            seen = await lane.session.changed(seen, due=view.due)
            async with self._turn:
                await self._write(view.news())
            with suppress(TimeoutError):
                await asyncio.wait_for(lane.over.wait(), _UPDATE_S)
        if lane.failure is not None and not isinstance(lane.failure, EmptyAudioError):
            view.waits = False
            async with self._turn:
                await self._write(view.news())
            raise closing(lane.failure)

    def _metadata(self) -> Body:
        received = max(lane.session.transcript.received_sample for lane in self._lanes)
        told = self._request.metadata(
            sha256=self._sha256.hexdigest(), num_samples=received, channels=len(self._lanes)
        )
        return {"type": "Metadata", **told}

    async def _send(self, messages: Sequence[Body]) -> None:
        async with self._turn:
            await self._write(messages)

    async def _write(self, messages: Sequence[Body]) -> None:
        """Send messages.

        Raises:
            ClientLeftError: The client is gone, or takes nothing any more.

        """
        for message in messages:
            text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
            await send_text(self._websocket, text)
            telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
            telemetry.BYTES_SENT.labels(PROTOCOL).inc(len(text.encode()))


def _schema_error(description: str, text: str) -> Body:
    return {
        "type": "Error",
        "variant": "SchemaError",
        "description": description,
        "message": text[:_ECHO_CHARS],
    }
