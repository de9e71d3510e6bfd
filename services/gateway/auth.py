"""Who may connect: the keys that clients of many vendors present, each in its own place."""

import hmac
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from services.common import keys
from services.common.watched import FileError, Watched

_SCHEMES = ("token", "bearer")
_KEY_HEADERS = ("x-api-key", "api-key")
_KEY_QUERIES = ("token", "api_key")
_KEY_PROTOCOLS = ("openai-insecure-api-key.", "realtime-token.")
_OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})


class KeysFileError(FileError):
    """The file with the keys cannot be used."""


class Keys:
    """The keys in a file, of which the hashes are known. Without a file, everybody is admitted.

    A line names a key and gives the SHA-256 of it, ``alice 2c26b46b...``, as ``voxmesh key alice``
    prints it.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            KeysFileError: It cannot be read, or a line of it cannot.

        """
        self._known = Watched((path,), partial(_read, path)) if path else None

    def caller(self, presented: Iterable[str]) -> str | None:
        """Name of the key that is presented; empty: none is needed; None: it is not known."""
        if self._known is None:
            return ""
        offers = [keys.digest(offer) for offer in presented]
        # Every hash is compared, in constant time: how long it takes tells nothing.
        known = [
            name
            for name, digest in self._known.content.items()
            for offer in offers
            if hmac.compare_digest(digest, offer)
        ]
        return known[0] if known else None

    async def watch(self) -> None:
        """Read the file again whenever it changes; one that cannot be read changes nothing."""
        if self._known is not None:
            await self._known.watch()


def _read(path: Path) -> dict[str, bytes]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"the keys in {path} cannot be read: {error}") from error
    names: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (found := keys.parse(line)) is None:
            raise KeysFileError(
                f"line {number} of {path} is not a name and a SHA-256 in hexadecimal"
            )
        name, digest = found
        if name in names:
            raise KeysFileError(f"line {number} of {path} names {name} again")
        names[name] = digest
    return names


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


def _offers(connection: HTTPConnection) -> Iterator[str]:
    return presented(connection.headers, connection.query_params)


class Guard:
    """ASGI middleware that refuses who presents no known key, and pages of foreign origin."""

    def __init__(self, app: ASGIApp, *, keys: Keys, origins: Sequence[str]) -> None:
        self._app = app
        self._keys = keys
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with the name of its key as ``state.caller``, or answer it."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        origin = connection.headers.get("origin")
        if self._origins and origin is not None and origin not in self._origins:
            refusal = _refusal(403, "pages of this origin may not connect", "origin_not_allowed")
        elif (caller := self._keys.caller(_offers(connection))) is None:
            refusal = _refusal(401, "Invalid credentials.", "invalid_api_key")
        else:
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(refusal)
        else:
            await refusal(scope, receive, send)


def _refusal(status: int, message: str, code: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status)
