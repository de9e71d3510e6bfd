"""``WS /v1/converse`` for clients written for gRPC: the same messages, the same errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc.aio
from google.protobuf import json_format
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from voxmesh.gateway.v1 import gateway_pb2 as pb

_STATUS_DETAILS = "grpc-status-details-bin"
"""What tells an error of the gateway's from a broken connection."""


class SocketStub:
    """Stands in for a ``GatewayServiceStub``."""

    def __init__(self, url: str, *, reading_s: float = 0.0) -> None:
        """Create it; nothing connects before ``Converse``.

        Args:
            url: Such as ``ws://127.0.0.1:8000/v1/converse``.
            reading_s: How long the client takes over each message before it reads the next.

        """
        self._url = url
        self._reading_s = reading_s

    async def Converse(  # noqa: N802 -- the contract's name
        self, requests: AsyncIterator[pb.ConverseRequest]
    ) -> AsyncIterator[pb.ConverseResponse]:
        """Hold one connection to its end.

        Raises:
            grpc.aio.AioRpcError: The gateway refused or ended the session, or the connection broke.

        """
        try:
            async with connect(self._url, proxy=None, compression=None) as socket:
                sending = asyncio.create_task(_send(socket, requests), name="bench.send")
                try:
                    async for message in socket:
                        answer = json.loads(message)
                        if "error" in answer:
                            raise _status(answer["error"])
                        # Whoever asks for answers reads them all, or is cancelled while it waits.
                        yield json_format.ParseDict(answer, pb.ConverseResponse())  # noqa: ASYNC119
                        await asyncio.sleep(self._reading_s)
                finally:
                    sending.cancel()
        except (WebSocketException, OSError) as error:
            broken = grpc.StatusCode.UNAVAILABLE
            raise grpc.aio.AioRpcError(
                broken, grpc.aio.Metadata(), grpc.aio.Metadata(), str(error)
            ) from error


async def _send(socket: ClientConnection, requests: AsyncIterator[pb.ConverseRequest]) -> None:
    with suppress(ConnectionClosed):  # whoever reads is told
        async for request in requests:
            if request.HasField("audio"):
                await socket.send(request.audio)
            else:
                await socket.send(json_format.MessageToJson(request, indent=None))


def _status(error: dict[str, Any]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode[error["status"]],
        grpc.aio.Metadata(),
        grpc.aio.Metadata((_STATUS_DETAILS, b"")),
        error["message"],
    )
