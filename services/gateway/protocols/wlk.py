"""``/asr``: the WebSocket of WhisperLiveKit, for its browser UI, its clients and its forks."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import structlog
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common import telemetry
from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    MeshError,
    NotFoundError,
)
from services.gateway.config import Settings
from services.gateway.decoder import ContainerFormat, open_decoder
from services.gateway.gateway import Gateway
from services.gateway.inbox import Inbox
from services.gateway.protocols.frames import accept, hang_up, send_text
from services.gateway.protocols.wlk_view import Message, View
from services.gateway.session import Session, SessionConfig
from services.gateway.session_config import Diarization
from services.gateway.sniff import MAGIC_BYTES, is_container
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle

log = structlog.get_logger(__name__)

PROTOCOL = "wlk"

_SWITCH = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_UNSUPPORTED = 4400
_UPDATE_S = 0.05
"""Between two messages, at least."""
_LAG_S = 1.0
"""Between two messages of which the later only says how far behind the transcript is."""
_BYTES_PER_S = 64_000
"""The whole transcript is sent again with every change: the longer it is, the rarer."""
_LANGUAGE_CHARS = 64
_REQUEST_CHARS = 100
"""Longer text is no request that is known."""


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The path that is served."""

    async def asr(websocket: WebSocket) -> None:
        await serve(websocket, gateway)

    return [WebSocketRoute("/asr", asr)]


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one connection from its handshake to its end."""
    async with AsyncExitStack() as slot:
        try:
            config = _config(websocket, gateway.settings)
            session = await slot.enter_async_context(gateway.session(config))
        except (InvalidRequestError, NotFoundError) as error:
            await _reject(websocket, str(error))
            return
        except MeshError as error:
            await websocket.send_denial_response(
                JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
            )
            return
        connection = _Connection(websocket, gateway, session, slot)
        with suppress(ClientLeftError), first_error():
            await connection.serve()


def _config(websocket: WebSocket, settings: Settings) -> SessionConfig:
    """What a client asks for, and what the settings say where it says nothing.

    Raises:
        InvalidRequestError: It asks for what cannot be done.

    """
    query = websocket.query_params
    diarize = settings.diarize
    if switch := query.get("diarization", ""):
        if switch.lower() not in _SWITCH:
            raise InvalidRequestError(f"diarization {switch!r} is neither true nor false")
        diarize = _SWITCH[switch.lower()]
    language = query.get("language", "")
    target = query.get("target_language", settings.target_language)
    if len(target) > _LANGUAGE_CHARS:
        raise InvalidRequestError(f"target_language has more than {_LANGUAGE_CHARS} characters")
    return SessionConfig(
        session_id=uuid.uuid4().hex,
        protocol=PROTOCOL,
        caller=websocket.state.caller,
        language_code="" if language == "auto" else language,
        model=query.get("model", ""),
        diarization=Diarization() if diarize else None,
        targets=(target,) if target else (),
    )


async def _reject(websocket: WebSocket, error: str) -> None:
    with suppress(WebSocketDisconnect, ClientLeftError):
        await accept(websocket)
        await websocket.send_json({"type": "error", "error": error})
        await websocket.close(_UNSUPPORTED)


class _Connection:
    """A client and its session. Three tasks: one receives, one transcribes, one sends."""

    def __init__(
        self, websocket: WebSocket, gateway: Gateway, session: Session, slot: AsyncExitStack
    ) -> None:
        self._websocket = websocket
        self._gateway = gateway
        self._settings = gateway.settings
        self._session = session
        self._slot = slot
        self._mode = websocket.query_params.get("mode", "full")
        self._pcm = self._settings.pcm_input
        if (input_format := websocket.query_params.get("format")) is not None:
            self._pcm = input_format == "pcm"
        self._throttle = Throttle(self._settings.max_messages_per_s)
        self._inbox = Inbox[bytes](self._settings.inbox_bytes)
        self._over = asyncio.Event()
        self._failure = ""
        self._view = View(
            session.transcript,
            diff=self._mode == "diff",
            name_language=not session.config.language_code,
            diarized=session.config.diarization is not None,
            target="".join(session.config.targets),
        )

    async def serve(self) -> None:
        """Serve the client until it has left, or has been told that all is said and lingers.

        Raises:
            ClientLeftError: It left.

        """
        await accept(self._websocket)
        await self._send({"type": "config", "useAudioWorklet": self._pcm, "mode": self._mode})
        async with asyncio.TaskGroup() as tasks:
            receive = tasks.create_task(self._receive(), name="wlk.receive")
            tasks.create_task(self._transcribe(), name="wlk.transcribe")
            close = tasks.create_task(self._close(), name="wlk.close")
            await self._show()
            close.cancel()
            await self._slot.aclose()
            # The client closes; one that does not is not waited for for ever.
            await asyncio.wait((receive,), timeout=self._settings.idle_s)
            receive.cancel()
        await hang_up(self._websocket, restarting=self._gateway.closing.is_set())

    async def _close(self) -> None:
        """End the session when the gateway has to stop."""
        await self._gateway.closing.wait()
        self._inbox.end()

    async def _receive(self) -> None:
        """Take in audio to its end, then wait for the client to leave."""
        try:
            async with asyncio.timeout(self._settings.idle_s) as idle:
                loop = asyncio.get_running_loop()
                while data := await self._next_frame():
                    idle.reschedule(None)  # It is the client that waits now.
                    await self._inbox.put(data)
                    idle.reschedule(loop.time() + self._settings.idle_s)
        except TimeoutError:
            log.info("client idle", session_id=self._session.config.session_id)
        self._inbox.end()
        while True:
            await self._next_frame()

    async def _next_frame(self) -> bytes:
        """The next binary frame. Text may only ask for a snapshot: clients of old send none.

        Raises:
            ClientLeftError: The client closed the connection, or lost it.

        """
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise ClientLeftError
            await self._throttle.admit()
            if (data := message.get("bytes")) is not None:
                return bytes(data)
            if _asks_for_snapshot(message.get("text") or ""):
                self._view.start_over()

    async def _transcribe(self) -> None:
        """Run the session; whatever becomes of it, the client is told that it is over."""
        try:
            await self._run()
        except MeshError as error:
            self._failure = str(error)
        except ClientLeftError:
            raise
        except Exception:  # the boundary: a bug must not keep the end from the client
            log.exception("unexpected error", session_id=self._session.config.session_id)
            self._failure = "internal error"
        self._over.set()

    async def _run(self) -> None:
        blocks = self._inbox.blocks()
        head = b""
        async for data in blocks:
            head += data
            if len(head) >= MAGIC_BYTES:
                break
        whole = _chained(head, blocks)
        if self._pcm and not is_container(head):
            await self._session.run(whole)
        elif not head:
            await self._session.run(blocks)
        else:
            await self._run_decoded(whole)

    async def _run_decoded(self, data: AsyncIterator[bytes]) -> None:
        async with open_decoder(
            ContainerFormat(), max_duration_s=self._settings.max_session_s
        ) as decoder:

            async def write() -> None:
                async for block in data:
                    await decoder.write(block)
                decoder.close()

            with first_error():
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(write(), name="wlk.decode")
                    await self._session.run(decoder.blocks())

    async def _show(self) -> None:
        """Send what changes, as often as it may, until the session is over; then the end."""
        clock = asyncio.get_running_loop().time
        seen = -1
        lags_at = clock()
        while not self._over.is_set():
            seen = await self._next_change(seen, lags_at + _LAG_S - clock())
            message = self._view.update(lags_too=clock() >= lags_at + _LAG_S)
            if clock() >= lags_at + _LAG_S:
                lags_at = clock()
            if message is None:
                continue
            lags_at = clock()
            size = await self._send(message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), max(_UPDATE_S, size / _BYTES_PER_S))
        await self._send(self._view.last())
        if self._failure:
            await self._send(self._view.failure(self._failure))
        await self._send({"type": "ready_to_stop"})

    async def _next_change(self, seen: int, timeout_s: float) -> int:
        if self._session.ended:
            # ``_over`` follows at once: the decoder may have something to add.
            await self._over.wait()
        return await self._session.changed(seen, timeout_s=max(timeout_s, 0))

    async def _send(self, message: Message) -> int:
        """Send a message; its size in bytes.

        Raises:
            ClientLeftError: The client is gone, or takes nothing any more.

        """
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        await send_text(self._websocket, text)
        size = len(text.encode())
        telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
        telemetry.BYTES_SENT.labels(PROTOCOL).inc(size)
        return size


def _asks_for_snapshot(text: str) -> bool:
    """Whether a client in diff mode wants the whole transcript, such as after losing count."""
    if len(text) > _REQUEST_CHARS:
        return False
    try:
        return bool(json.loads(text) == {"type": "snapshot"})
    except ValueError:
        return False


async def _chained(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for data in rest:
        yield data
