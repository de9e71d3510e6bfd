"""Temporary tokens for ``/v1/listen``, which a server gets for the browsers of its users."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.auth import presented
from services.gateway.gateway import Gateway
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.uploads import receive_object

_DEFAULT_S = 30.0
_SHORTEST_S = 1.0
_LONGEST_S = 3600.0


async def grant(gateway: Gateway, request: Request) -> Response:
    """Make a token.

    Raises:
        InvalidRequestError: It is asked for in a way that cannot be understood.
        UnauthenticatedError: The request presents no key that may make others.
        OverloadedError: There are too many already.

    """
    ttl_s = _ttl_s((await receive_object(request)).get("ttl_seconds"))
    token = gateway.keys.lend(presented(request.headers, request.query_params), ttl_s)
    return JSONResponse({"access_token": token, "expires_in": ttl_s})


def _ttl_s(asked: object) -> float:
    match asked:
        case None:
            return _DEFAULT_S
        case bool():
            pass
        case int() | float() if _SHORTEST_S <= asked <= _LONGEST_S:
            return float(asked)
    allowed = f"{_SHORTEST_S:g} to {_LONGEST_S:g}"
    raise RefusedError(f"ttl_seconds: is no number within {allowed}", param="ttl_seconds")
