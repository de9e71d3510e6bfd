"""Deepgram's API: ``/v1/listen``, live over a WebSocket and for recordings over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from services.common.errors import InvalidRequestError
from services.gateway.decoder import PacketFormat
from services.gateway.fetch import fetch
from services.gateway.gateway import Gateway
from services.gateway.protocols import deepgram_live, deepgram_metadata
from services.gateway.protocols.deepgram_errors import FAMILY
from services.gateway.protocols.deepgram_grant import grant
from services.gateway.protocols.deepgram_query import Wish, read_wish
from services.gateway.protocols.deepgram_recording import Heard, results, warnings
from services.gateway.protocols.deepgram_words import Body
from services.gateway.protocols.http_errors import answering
from services.gateway.protocols.recordings import (
    UndecodableError,
    language_of,
    transcribe,
    transcribe_apart,
    unless_left,
)
from services.gateway.session import Pace, SessionConfig
from services.gateway.uploads import Write, keep_file, receive_file, receive_object

_Serve = Callable[[Gateway, Request], Awaitable[Response]]


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The paths that are served."""

    def route(path: str, serve: _Serve, method: str) -> Route:
        return Route(path, answering(partial(serve, gateway), FAMILY), methods=[method])

    async def live(websocket: WebSocket) -> None:
        await deepgram_live.serve(websocket, gateway)

    return [
        WebSocketRoute("/v1/listen", live),
        route("/v1/listen", _listen, "POST"),
        route("/v1/auth/grant", grant, "POST"),
        route("/v1/status", _status, "GET"),
        route("/v1/status/engine", _engine, "GET"),
    ]


async def _listen(gateway: Gateway, request: Request) -> Response:
    gateway.check_room(request.state.caller)
    wish = read_wish(
        request.query_params,
        live=False,
        models=[info.name for info in gateway.models()],
        language=gateway.settings.language,
    )
    async with _recording(gateway, request) as (file, sha256):
        _, info = gateway.pools.choose(wish.model)
        config = SessionConfig(
            session_id=request.state.request_id,
            protocol=deepgram_live.PROTOCOL,
            caller=request.state.caller,
            language_code=wish.language_code,
            model=wish.model,
            pace=Pace.FILE,
            hotwords=wish.hotwords,
            diarization=wish.diarization,
        )
        assert not isinstance(wish.audio_format, PacketFormat), "only streams come in packets"
        about = (gateway, request, config, wish.audio_format, file)
        try:
            if wish.multichannel:
                sessions = await transcribe_apart(*about)
            else:
                sessions = [await transcribe(*about)]
        except UndecodableError:
            message = "failed to process audio: corrupt or unsupported data"
            raise InvalidRequestError(message) from None
    heard = [
        Heard(
            session.transcript.words,
            language_of(session, info),
            session.transcript.language_probability,
            session.transcript.lacks("diarizer"),
        )
        for session in sessions
    ]
    metadata = deepgram_metadata.Request(request.state.request_id, info, wish.extra).metadata(
        sha256=sha256,
        num_samples=max(session.transcript.received_sample for session in sessions),
        channels=len(sessions),
    )
    # An hour of words takes a while to lay out.
    return await asyncio.to_thread(_response, heard, wish, metadata)


@asynccontextmanager
async def _recording(gateway: Gateway, request: Request) -> AsyncIterator[tuple[UploadFile, str]]:
    """What the client sends, or what is there where it says."""
    limit = gateway.settings.max_upload_bytes
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        async with receive_file(request, max_bytes=limit) as received:
            yield received
        return
    if not gateway.fetch_hosts:
        raise InvalidRequestError("recordings are not fetched from URLs: send the bytes")
    url = (await receive_object(request)).get("url")
    if not isinstance(url, str):
        raise InvalidRequestError("url: is missing, or no text")

    async def fill(write: Write) -> None:
        await unless_left(request, fetch(url, gateway.fetch_hosts, write))

    async with keep_file(fill, max_bytes=limit) as fetched:
        yield fetched


def _response(heard: Sequence[Heard], wish: Wish, metadata: Body) -> Response:
    if told := warnings(heard, wish):
        metadata["warnings"] = told
    return JSONResponse({"metadata": metadata, "results": results(heard, wish)})


async def _status(gateway: Gateway, _request: Request) -> Response:
    health = "Healthy" if await gateway.healthy() else "Critical"
    return JSONResponse(
        {
            "system_health": health,
            "active_batch_requests": gateway.open_by_pace[Pace.FILE],
            "active_stream_requests": gateway.open_by_pace[Pace.LIVE],
        }
    )


async def _engine(gateway: Gateway, _request: Request) -> Response:
    # Probes compare the beginning of the text: this key is the first one, without white space.
    connected = (await gateway.ready())["asr"]
    return JSONResponse({"engine_connection_status": "Connected" if connected else "Disconnected"})
