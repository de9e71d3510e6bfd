"""Who may connect: the keys that clients of many vendors present, each in its own place."""

import hmac
from collections.abc import Iterable, Iterator, Sequence

from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

_SCHEMES = ("token", "bearer")
_KEY_HEADERS = ("x-api-key", "api-key")
_KEY_QUERIES = ("token", "api_key")
_KEY_PROTOCOLS = ("openai-insecure-api-key.", "realtime-token.")
_OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})


class Keys:
    """The keys that are known. Without any, everybody is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def admit(self, presented: Iterable[str]) -> bool:
        """Whether one of the keys presented is known, compared in constant time."""
        if not self._keys:
            return True
        offers = [offer.encode() for offer in presented]
        matches = [hmac.compare_digest(key, offer) for key in self._keys for offer in offers]
        return any(matches)


def from_authorization(value: str) -> str:
    """The key in an ``Authorization`` header: ``Token K``, ``Bearer K`` in any case, or bare."""
    scheme, _, key = value.strip().partition(" ")
    return key.strip() if scheme.lower() in _SCHEMES else value.strip()


def presented(headers: Headers, query: QueryParams) -> Iterator[str]:
    """Every key that a request or a WebSocket handshake carries."""
    if value := headers.get("authorization"):
        yield from_authorization(value)
    yield from (headers[name] for name in _KEY_HEADERS if name in headers)
    yield from (query[name] for name in _KEY_QUERIES if name in query)
    offered = headers.get("sec-websocket-protocol", "").split(",")
    protocols = [protocol.strip() for protocol in offered]
    if protocols[0] in _SCHEMES:
        yield from protocols[1:2]
    for prefix in _KEY_PROTOCOLS:
        yield from (name.removeprefix(prefix) for name in protocols if name.startswith(prefix))


class Guard:
    """ASGI middleware that refuses who presents no known key, and pages of foreign origin."""

    def __init__(self, app: ASGIApp, *, keys: Keys, origins: Sequence[str]) -> None:
        self._app = app
        self._keys = keys
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        origin = connection.headers.get("origin")
        if self._origins and origin is not None and origin not in self._origins:
            refusal = _refusal(403, "pages of this origin may not connect", "origin_not_allowed")
        elif not self._keys.admit(presented(connection.headers, connection.query_params)):
            refusal = _refusal(401, "Invalid credentials.", "invalid_api_key")
        else:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(refusal)
        else:
            await refusal(scope, receive, send)


def _refusal(status: int, message: str, code: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status)
