"""Who may connect: the keys that clients of many vendors present, each in its own place."""

import asyncio
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from services.common import keys
from services.common.errors import OverloadedError, UnauthenticatedError
from services.common.watched import FileError, Watched
from services.gateway.refusals import everywhere

_SCHEMES = ("token", "bearer")
_KEY_HEADERS = ("x-api-key", "api-key")
_KEY_QUERIES = ("token", "api_key")
_KEY_PROTOCOLS = ("openai-insecure-api-key.", "realtime-token.")
_LENT_PREFIX = "ek_"
_LENT_BYTES = 32
_MAX_LENT = 10_000
_OPEN_PATHS = frozenset(
    {"/health", "/ready", "/metrics", "/v1/status", "/v1/status/engine"}
    | {"/openapi.json", "/asyncapi.json"}
)
"""Probes, which have no keys, and what is no secret."""


class KeysFileError(FileError):
    """The file with the keys cannot be used."""


@dataclass(frozen=True, slots=True)
class _Loan:
    owner: str
    digest: bytes
    """Of the owner's key: what was lent goes with it."""
    until_s: float
    """On the event loop's clock."""


class Keys:
    """The keys in a file, of which the hashes are known. Without a file, everybody is admitted.

    A line names a key and gives the SHA-256 of it, ``alice 2c26b46b...``, as ``voxmesh key alice``
    prints it. Who has a key can be lent others, which go sooner.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            KeysFileError: It cannot be read, or a line of it cannot.

        """
        self._known = Watched((path,), partial(_read, path)) if path else None
        self._lent: dict[bytes, _Loan] = {}

    def caller(self, presented: Iterable[str]) -> str | None:
        """Name of the key that is presented; empty: none is needed; None: it is not known."""
        if self._known is None:
            return ""
        offers = [keys.digest(offer) for offer in presented]
        return self._owner(offers) or self._borrower(offers)

    def lend(self, presented: Iterable[str], ttl_s: float) -> str:
        """A key that works for so many seconds in place of the one that is presented.

        Raises:
            UnauthenticatedError: None is presented that is known, or only one that was lent.

        """
        lent = _LENT_PREFIX + secrets.token_urlsafe(_LENT_BYTES)
        if self._known is None:
            return lent
        offers = [keys.digest(offer) for offer in presented]
        owner = self._owner(offers)
        if owner is None:
            raise UnauthenticatedError("a temporary key cannot make others")
        now_s = asyncio.get_running_loop().time()
        self._lent = {key: loan for key, loan in self._lent.items() if loan.until_s > now_s}
        if len(self._lent) >= _MAX_LENT:
            raise OverloadedError("too many temporary keys are in use")
        digest = self._known.content[owner]
        self._lent[keys.digest(lent)] = _Loan(owner, digest, now_s + ttl_s)
        return lent

    def _borrower(self, offers: Sequence[bytes]) -> str | None:
        """Whose key was lent; None: it was not, or too long ago, or is revoked."""
        assert self._known is not None
        for offer in offers:
            # Looking for a hash tells nothing of near misses.
            loan = self._lent.get(offer)
            if loan is None or loan.until_s <= asyncio.get_running_loop().time():
                continue
            if self._known.content.get(loan.owner) == loan.digest:
                return loan.owner
        return None

    def _owner(self, offers: Sequence[bytes]) -> str | None:
        assert self._known is not None
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
            refusal = everywhere(
                403,
                "pages of this origin may not connect",
                code="origin_not_allowed",
                deepgram_code="INSUFFICIENT_PERMISSIONS",
            )
        elif (caller := self._keys.caller(_offers(connection))) is None:
            refusal = everywhere(
                401,
                "Invalid credentials.",
                code="invalid_api_key",
                deepgram_code="INVALID_AUTH",
            )
        else:
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(refusal)
        else:
            await refusal(scope, receive, send)
