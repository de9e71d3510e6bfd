"""``nvidia.riva.asr.RivaSpeechRecognition``: the gRPC service of NVIDIA Riva, for its clients.

What a client sees is in ``proto/voxmesh/foreign/riva/riva_asr.proto``.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from services.common import telemetry
from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    NotFoundError,
    UpstreamError,
)
from services.gateway.decoder import Decoder, open_decoder
from services.gateway.gateway import Gateway
from services.gateway.live_session import LiveSession
from services.gateway.protocols.riva_request import PROTOCOL, Wish, read_wish
from services.gateway.protocols.riva_view import Results, catalogue, recording
from services.gateway.session_config import Pace, SessionConfig
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle
from voxmesh.foreign.riva import riva_asr_pb2 as pb

_LOOK_S = 0.1
"""Between two looks at whether a pause is long enough: silence is no news."""
_WRITE_BYTES = 1 << 16
_FORCE_FINAL = "force_eou"

Request = TypeVar("Request")
Requests = AsyncIterator[pb.StreamingRecognizeRequest]
Send = Callable[[pb.StreamingRecognizeResponse], Awaitable[None]]


def models(
    gateway: Gateway, request: pb.RivaSpeechRecognitionConfigRequest
) -> pb.RivaSpeechRecognitionConfigResponse:
    """What can be asked for.

    Raises:
        InvalidRequestError: There is no such model.
        UpstreamError: No recogniser has been reached yet.

    """
    if not gateway.models():
        raise UpstreamError("the recogniser has not been reached yet")
    found = catalogue(gateway.models(), only=request.model_name)
    if not found.model_config:
        raise InvalidRequestError(f"unavailable model requested: {request.model_name!r}")
    return found


async def recognize(
    gateway: Gateway, requests: AsyncIterator[pb.RecognizeRequest], *, caller: str
) -> pb.RecognizeResponse:
    """Read a recording.

    Args:
        gateway: What serves the session.
        requests: The one message, which may not have arrived yet.
        caller: Name of the key that the client presented; empty: none was needed.

    Raises:
        MeshError: It cannot be had.
        ClientLeftError: The client left before it had asked.

    """
    gateway.check_room(caller)
    settings = gateway.settings
    request = await _first(requests, settings.idle_s)
    wish = read_wish(request.config)
    config = _config(gateway, wish, caller, Pace.FILE)
    async with (
        gateway.session(config) as session,
        open_decoder(
            wish.audio_format,
            max_duration_s=settings.max_file_s,
            max_spool_bytes=settings.max_upload_bytes,
            may_have_header=True,
        ) as decoder,
    ):
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write(request.audio, decoder), name="riva.decode")
                await session.run(decoder.blocks())
    response = recording(session.transcript, wish, request.id.value)
    telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
    telemetry.BYTES_SENT.labels(PROTOCOL).inc(response.ByteSize())
    return response


async def streaming_recognize(
    gateway: Gateway, requests: Requests, send: Send, *, caller: str
) -> None:
    """Serve one stream from its first message to its end.

    Args:
        gateway: What serves the session.
        requests: What the client says; their end is the end of the audio.
        send: Says something to the client; waits while it is slow.
        caller: Name of the key that the client presented; empty: none was needed.

    Raises:
        MeshError: The session cannot be had, or cannot go on.
        ClientLeftError: The client left.

    """
    first = await _first(requests, gateway.settings.idle_s)
    if first.WhichOneof("streaming_request") != "streaming_config":
        raise InvalidRequestError("the first message must have a streaming_config")
    asked = first.streaming_config
    wish = read_wish(asked.config, interim_results=asked.interim_results)
    config = _config(gateway, wish, caller, Pace.LIVE)
    async with (
        gateway.session(config) as session,
        open_decoder(
            wish.audio_format,
            max_duration_s=gateway.settings.max_session_s,
            may_have_header=True,
        ) as decoder,
    ):
        live = LiveSession(session, decoder)
        results = Results(session.transcript, wish, first.id.value)
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(live.run(gateway.closing), name="riva.session")
                stream = _Stream(gateway, live, results, send)
                receive = tasks.create_task(stream.receive(requests), name="riva.receive")
                await stream.show()
                receive.cancel()
        if live.failure is not None:
            raise live.failure


class _Stream:
    """A client of a live session: one task receives, one sends."""

    def __init__(self, gateway: Gateway, live: LiveSession, results: Results, send: Send) -> None:
        self._idle_s = gateway.settings.idle_s
        self._throttle = Throttle(gateway.settings.max_messages_per_s)
        self._live = live
        self._results = results
        self._send = send
        self._turn = asyncio.Lock()
        """Two tasks send; what is put together is sent before anything newer is."""

    async def receive(self, requests: Requests) -> None:
        """Take in audio until the client closes its side, or says nothing for too long.

        Raises:
            InvalidRequestError: It said something that has no place here.

        """
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    request = await anext(requests)
            except (StopAsyncIteration, TimeoutError):
                break
            await self._throttle.admit()
            if request.HasField("streaming_config"):
                raise InvalidRequestError("a second streaming_config")
            await self._live.write(request.audio_content)
            if request.runtime_config.get(_FORCE_FINAL) == "true":
                await self._live.flush()
                await self._tell(all_final=True)
        self._live.close()

    async def show(self) -> None:
        """Send what changes, as it changes, until the session is over; then the rest."""
        session = self._live.session
        seen = -1
        while not self._live.over.is_set():
            if session.ended:
                await self._live.over.wait()
            timeout_s = _LOOK_S if self._results.waiting else None
            seen = await session.changed(seen, timeout_s=timeout_s)
            await self._tell()
        await self._tell(all_final=True)

    async def _tell(self, *, all_final: bool = False) -> None:
        async with self._turn:
            for response in self._results.news(all_final=all_final):
                await self._send(response)
                telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
                telemetry.BYTES_SENT.labels(PROTOCOL).inc(response.ByteSize())


async def _first(requests: AsyncIterator[Request], idle_s: float) -> Request:
    try:
        async with asyncio.timeout(idle_s):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        raise ClientLeftError from None


def _config(gateway: Gateway, wish: Wish, caller: str, pace: Pace) -> SessionConfig:
    """The session that grants a wish.

    Raises:
        InvalidRequestError: There is no such model or language: Riva's code for either.
        UpstreamError: No recogniser has been reached yet.

    """
    config = wish.session_config(uuid.uuid4().hex, caller, pace)
    try:
        gateway.pools.choose(config.model)
    except NotFoundError as error:
        raise InvalidRequestError(f"unavailable model requested: {error}") from error
    return config


async def _write(audio: bytes, decoder: Decoder) -> None:
    for start in range(0, len(audio), _WRITE_BYTES):
        await decoder.write(audio[start : start + _WRITE_BYTES])
    decoder.close()
