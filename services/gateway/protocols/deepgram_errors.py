"""What goes wrong, as Deepgram says it: over HTTP, and when a WebSocket is closed.

| error | status | err_code |
|---|---|---|
| ``RefusedError`` | 400 | its own |
| ``NotJsonError`` | 400 | INVALID_JSON |
| ``FetchError`` | 400 | REMOTE_CONTENT_ERROR |
| ``InvalidRequestError``, ``NotFoundError`` | 400 | Bad Request |
| ``UnauthenticatedError`` | 401 | INVALID_AUTH |
| ``StreamTooLongError`` | 413 | PAYLOAD_TOO_LARGE |
| ``OverloadedError`` | 429 | TOO_MANY_REQUESTS |
| other ``MeshError`` | 503 | the error's reason |
| anything else | 500 | INTERNAL_SERVER_ERROR |
"""

import uuid
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

from services.common.errors import (
    InvalidRequestError,
    MeshError,
    NotFoundError,
    OverloadedError,
    StreamTooLongError,
    UnauthenticatedError,
)
from services.gateway.fetch_hosts import FetchError
from services.gateway.protocols.http_errors import RETRY_SOON, Family, RefusedError
from services.gateway.refusals import deepgram_body, deepgram_headers
from services.gateway.uploads import NotJsonError

_REFUSED = 1008
_INTERNAL = 1011
_MAX_REASON_BYTES = 120
"""A close frame has room for 123."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the client sees it."""

    status: int
    code: str
    message: str
    request_id: str
    more_headers: dict[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """What is said about it outside the body."""
        return deepgram_headers(self.message, self.request_id) | self.more_headers

    def body(self) -> dict[str, object]:
        """The JSON that is sent."""
        return deepgram_body(self.code, self.message, self.request_id)


def problem_of(error: Exception, request_id: str) -> Problem:
    """What to tell the client about an error."""
    message = str(error)
    match error:
        case RefusedError():
            return Problem(400, error.code_name or "Bad Request", message, request_id)
        case NotJsonError():
            return Problem(400, "INVALID_JSON", message, request_id)
        case FetchError():
            return Problem(400, "REMOTE_CONTENT_ERROR", message, request_id)
        case InvalidRequestError() | NotFoundError():
            return Problem(400, "Bad Request", f"Bad Request: {message}", request_id)
        case UnauthenticatedError():
            return Problem(401, "INVALID_AUTH", message, request_id)
        case StreamTooLongError():
            return Problem(413, "PAYLOAD_TOO_LARGE", message, request_id)
        case OverloadedError():
            told = "Too many requests. Please try again later"
            return Problem(429, "TOO_MANY_REQUESTS", told, request_id, RETRY_SOON)
        case MeshError():
            return Problem(503, error.reason, message, request_id, RETRY_SOON)
    return Problem(500, "INTERNAL_SERVER_ERROR", "Internal Server Error", request_id)


FAMILY = Family("dg-request-id", lambda: str(uuid.uuid4()), problem_of)


def refusal(error: Exception, request_id: str) -> JSONResponse:
    """The answer to a handshake that fails."""
    problem = problem_of(error, request_id)
    return JSONResponse(problem.body(), problem.status, problem.headers)


class ClosedError(Exception):
    """The connection is to be closed before everything has been said."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        data = reason.encode()[:_MAX_REASON_BYTES]
        self.reason = data.decode(errors="ignore")


def idle() -> ClosedError:
    """The client has said nothing for too long."""
    return ClosedError(
        _INTERNAL,
        "NET-0001: no audio data or text message was received within the timeout window",
    )


def closing(error: Exception) -> ClosedError:
    """How a stream ends that cannot go on."""
    match error:
        case InvalidRequestError():
            return ClosedError(_REFUSED, f"DATA-0000: {error}")
        case StreamTooLongError():
            return ClosedError(_REFUSED, str(error))
        case MeshError():
            return ClosedError(_INTERNAL, f"NET-0000: {error}")
    return ClosedError(_INTERNAL, "NET-0000: internal error")
