"""The server of everything that is not gRPC."""

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Largest WebSocket message that is taken."""


_UNSHAKEN = "ASGI callable returned without completing handshake."


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's is worth a log: it takes every refused WebSocket for a fault."""
    return record.msg != _UNSHAKEN


class HttpServer(uvicorn.Server):
    """uvicorn, without signal handlers of its own: both servers of the process drain together."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the process."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket for HTTP clients to connect to.

    Raises:
        OSError: The address cannot be listened on.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def http_server(app: ASGIApp, tls: ssl.SSLContext | None = None) -> HttpServer:
    """A server for an application; ``serve(sockets=[...])`` runs it until ``should_exit``.

    Args:
        app: The application.
        tls: What its connections are protected with; None: nothing.

    """
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        # Compressing captions costs a window per connection and saves little.
        ws_per_message_deflate=False,
        # It would hold keys that clients put into the query.
        access_log=False,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=2,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    return HttpServer(config)
