"""Temporary keys for ``/v1/realtime``, which a server gets for the browsers of its users."""

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.common.errors import MeshError, OverloadedError
from services.common.keys import digest
from services.gateway.auth import Keys, presented
from services.gateway.protocols.http_errors import answering, problem_of
from services.gateway.protocols.realtime_openai import now_s, session_id
from services.gateway.protocols.realtime_riva import default_session
from services.gateway.protocols.realtime_wish import Body, Fields, Wish, refused, updated
from services.gateway.uploads import receive_object

_DEFAULT_S = 600
_SHORTEST_S = 10
_LONGEST_S = 7200
_MAX_KEPT = 10_000


class Mint:
    """Makes keys, and remembers for how long each stands for what session."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._minted: dict[bytes, tuple[float, Wish]] = {}
        """By the hash of its key: until when, on the event loop's clock, and what for."""

    def make(self, request: Request, ttl_s: int, wish: Wish) -> Body:
        """A key, and when it expires.

        Raises:
            UnauthenticatedError: The request presents no key that may make others.
            OverloadedError: There are too many already.

        """
        clock_s = asyncio.get_running_loop().time()
        kept = {key: minted for key, minted in self._minted.items() if minted[0] > clock_s}
        if len(kept) >= _MAX_KEPT:
            raise OverloadedError("too many temporary keys are in use")
        value = self._keys.lend(presented(request.headers, request.query_params), ttl_s)
        self._minted = {**kept, digest(value): (clock_s + ttl_s, wish)}
        return {"value": value, "expires_at": now_s() + ttl_s}

    def find(self, connection: HTTPConnection) -> Wish | None:
        """The session that a key of a connection was made for, if it was made here."""
        clock_s = asyncio.get_running_loop().time()
        for key in presented(connection.headers, connection.query_params):
            until_s, wish = self._minted.get(digest(key), (clock_s, Wish()))
            if until_s > clock_s:
                return wish
        return None


_Answer = Callable[[Mint, Request, Body], Body]


def routes(mint: Mint) -> list[Route]:
    """The paths that are served."""

    def route(path: str, answer: _Answer) -> Route:
        return Route(path, answering(partial(_serve, mint, answer)), methods=["POST"])

    return [
        route("/v1/realtime/client_secrets", _client_secret),
        route("/v1/realtime/transcription_sessions", _transcription_session),
    ]


async def _serve(mint: Mint, answer: _Answer, request: Request) -> Response:
    try:
        return JSONResponse(answer(mint, request, await receive_object(request)))
    except MeshError as error:
        problem = problem_of(error)
        # NVIDIA's client shows ``detail``.
        told = {**problem.body(), "detail": problem.message}
        return JSONResponse(told, problem.status, problem.headers)


def _client_secret(mint: Mint, request: Request, body: Body) -> Body:
    wanted = Fields(body, "body").fields("expires_after")
    ttl_s = wanted.number("seconds", _DEFAULT_S, _LONGEST_S)
    if ttl_s < _SHORTEST_S:
        raise refused("expires_after.seconds", f"is less than {_SHORTEST_S}")
    wish = updated(Wish(), body.get("session") or {})
    secret = mint.make(request, int(ttl_s), wish)
    return {**secret, "session": {**wish.shown(), "id": session_id()}}


def _transcription_session(mint: Mint, request: Request, body: Body) -> Body:
    wish = updated(Wish(), body)
    session = wish.shown_flat()
    return {
        **default_session(),
        **session,
        "id": session_id(),
        "input_audio_transcription": session["input_audio_transcription"] or {},
        "client_secret": mint.make(request, _DEFAULT_S, wish),
    }
