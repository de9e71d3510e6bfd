"""Speaking over a WebSocket whose client may be gone."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common.errors import ClientLeftError

NO_HEADERS: Mapping[str, str] = {}
_NORMAL = 1000
_SERVICE_RESTART = 1012
_KEY_SUBPROTOCOLS = frozenset({"token", "bearer", "realtime"})
"""Behind the first two of them comes a key, with the third one goes one: it is never echoed."""
_SEND_S = 30.0
"""A client that takes no message for so long is gone."""


async def accept(websocket: WebSocket, headers: Mapping[str, str] = NO_HEADERS) -> None:
    """Accept the handshake, with the subprotocol in whose company the client presented its key.

    Browsers and Node drop a connection on which nothing they offered is chosen.

    Args:
        websocket: The connection.
        headers: What the answer carries besides.

    Raises:
        ClientLeftError: The client is gone.

    """
    offered = websocket.scope.get("subprotocols", [])
    chosen = next((name for name in offered if name in _KEY_SUBPROTOCOLS), None)
    try:
        await websocket.accept(
            subprotocol=chosen,
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        )
    except WebSocketDisconnect:
        raise ClientLeftError from None


async def send_text(websocket: WebSocket, text: str) -> None:
    """Send a text frame.

    Raises:
        ClientLeftError: The client is gone, or takes nothing any more.

    """
    try:
        async with asyncio.timeout(_SEND_S):
            await websocket.send_text(text)
    except (WebSocketDisconnect, TimeoutError):
        raise ClientLeftError from None


async def hang_up(websocket: WebSocket, *, restarting: bool) -> None:
    """Close the connection after everything has been said.

    Args:
        websocket: The connection.
        restarting: Whether it ends because the gateway does.

    """
    with suppress(WebSocketDisconnect):
        await websocket.close(_SERVICE_RESTART if restarting else _NORMAL)
