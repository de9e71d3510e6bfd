"""``/v1/converse``: the messages of ``Converse`` over a WebSocket.

A text frame is a message in the JSON form of Protocol Buffers, a binary frame is audio. Why a
session is refused or cannot go on is said in a last frame, ``{"error": {"code", "status",
"message", "reason"}}`` in gRPC's terms, with ``retry_after_s`` where it helps to wait.
"""

import json
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import structlog
from google.protobuf import json_format
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common.errors import (
    ClientLeftError,
    DrainingError,
    InvalidRequestError,
    MeshError,
    OverloadedError,
    SupersededError,
    UpstreamError,
)
from services.common.rpc import RETRY_DELAY_S
from services.gateway.gateway import Gateway
from services.gateway.protocols.converse import converse
from services.gateway.protocols.frames import accept, hang_up, send_text
from voxmesh.gateway.v1 import gateway_pb2 as pb

log = structlog.get_logger(__name__)

PROTOCOL = "websocket"

_MAX_TEXT_CHARS = 1 << 18
"""Six seconds of audio in base64. A text is read in one go, and other sessions wait meanwhile."""

_NORMAL = 1000
_REFUSED = 1008
_INTERNAL = 1011
_TRY_LATER = 1013


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The path that is served."""

    async def conversation(websocket: WebSocket) -> None:
        await serve(websocket, gateway)

    return [WebSocketRoute("/v1/converse", conversation)]


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serve one connection from its handshake to its end."""

    async def send(response: pb.ConverseResponse) -> None:
        text = json_format.MessageToJson(response, indent=None, preserving_proto_field_name=True)
        await send_text(websocket, text)

    caller = websocket.state.caller
    try:
        await accept(websocket)
        await converse(gateway, _requests(websocket), send, protocol=PROTOCOL, caller=caller)
    except ClientLeftError:
        return
    except MeshError as error:
        await _close(websocket, _closing_code(error), error)
    except Exception:  # the boundary: a bug must not keep the end from the client
        log.exception("unexpected error")
        await _close(websocket, _INTERNAL, None)
    else:
        await hang_up(websocket, restarting=gateway.closing.is_set())


async def _requests(websocket: WebSocket) -> AsyncIterator[pb.ConverseRequest]:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if (data := message.get("bytes")) is not None:
            yield pb.ConverseRequest(audio=data)
            continue
        text = message["text"]
        if len(text) > _MAX_TEXT_CHARS:
            raise InvalidRequestError(
                f"a text is limited to {_MAX_TEXT_CHARS} characters: send audio in binary frames"
            )
        try:
            yield json_format.Parse(text, pb.ConverseRequest(), max_recursion_depth=10)
        except json_format.ParseError as error:
            raise InvalidRequestError(f"a message cannot be read: {error}") from None


def _closing_code(error: MeshError) -> int:
    match error:
        case OverloadedError() | DrainingError() | UpstreamError():
            return _TRY_LATER
        case SupersededError():
            return _NORMAL
    return _REFUSED


async def _close(websocket: WebSocket, code: int, error: MeshError | None) -> None:
    """Say why, and hang up."""
    status = error.code if error else grpc.StatusCode.INTERNAL
    told = {"code": status.value[0], "status": status.name, "message": "internal error"}
    if error is not None:
        told |= {"message": str(error), "reason": error.reason}
    if isinstance(error, OverloadedError):
        told["retry_after_s"] = RETRY_DELAY_S
    with suppress(WebSocketDisconnect, ClientLeftError):
        await send_text(websocket, json.dumps({"error": told}))
        await websocket.close(code)
