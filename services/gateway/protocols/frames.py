"""Sending over a WebSocket whose client may be gone."""

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common.errors import ClientLeftError

_SEND_S = 30.0
"""A client that takes no message for so long is gone."""


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
