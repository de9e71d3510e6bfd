"""What goes wrong, as HTTP says it in OpenAI's form.

| error | status | type | code |
|---|---|---|---|
| ``InvalidRequestError`` | 400 | invalid_request_error | ``RefusedError`` names one |
| ``NotJsonError`` | 400 | invalid_request_error | invalid_json |
| ``UnauthenticatedError`` | 401 | invalid_request_error | invalid_api_key |
| ``NotFoundError`` | 404 | invalid_request_error | model_not_found |
| ``StreamTooLongError`` | 413 | invalid_request_error | audio_too_long |
| ``OverloadedError`` | 429 | rate_limit_error | rate_limit_exceeded |
| other ``MeshError`` | 503 | server_error | the error's reason |
| anything else | 500 | server_error | internal_error |
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    MeshError,
    NotFoundError,
    OverloadedError,
    StreamTooLongError,
    UnauthenticatedError,
    UpstreamError,
)
from services.gateway.refusals import openai_body
from services.gateway.uploads import NotJsonError

log = structlog.get_logger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

_LINGER_S = 2.0
"""How long a client that was refused may go on sending before its connection is closed."""
_CLIENT_LEFT = 499
_NO_RETRY = {"x-should-retry": "false"}
RETRY_SOON = {"Retry-After": "1"}
"""Said with an error that may soon be over."""


class RefusedError(InvalidRequestError):
    """What the client said is at fault; most often a parameter, which has a name."""

    def __init__(self, message: str, *, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code_name = code


class GaveUpError(UpstreamError):
    """The mesh has tried again by itself, for as long as there was hope."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the client sees it."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """The JSON that is sent."""
        return openai_body(self.kind, self.code, self.message, self.param)


def problem_of(error: Exception) -> Problem:
    """What to tell the client about an error."""
    message = str(error)
    match error:
        case RefusedError():
            code, param = error.code_name, error.param
            return Problem(400, "invalid_request_error", code, message, param)
        case NotJsonError():
            return Problem(400, "invalid_request_error", "invalid_json", message)
        case InvalidRequestError():
            return Problem(400, "invalid_request_error", None, message)
        case UnauthenticatedError():
            return Problem(401, "invalid_request_error", "invalid_api_key", message)
        case NotFoundError():
            return Problem(404, "invalid_request_error", "model_not_found", message, "model")
        case StreamTooLongError():
            return Problem(413, "invalid_request_error", "audio_too_long", message, "file")
        case OverloadedError():
            code = "rate_limit_exceeded"
            return Problem(429, "rate_limit_error", code, message, headers=RETRY_SOON)
        case GaveUpError():
            code = error.reason.lower()
            return Problem(503, "server_error", code, message, headers=_NO_RETRY)
        case MeshError():
            code = error.reason.lower()
            return Problem(503, "server_error", code, message, headers=RETRY_SOON)
        case _:
            message = "internal error"
            return Problem(500, "server_error", "internal_error", message, headers=_NO_RETRY)


class Told(Protocol):
    """An error in the form of an API family."""

    @property
    def status(self) -> int:
        """HTTP's."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is said outside the body."""

    def body(self) -> dict[str, object]:
        """The JSON that is sent."""


@dataclass(frozen=True, slots=True)
class Family:
    """How an API family names requests and tells errors."""

    id_header: str
    new_id: Callable[[], str]
    explain: Callable[[Exception, str], Told]
    """Error and request id -> what the client is told."""


OPENAI = Family("x-request-id", lambda: uuid.uuid4().hex, lambda error, _id: problem_of(error))


def answering(endpoint: Endpoint, family: Family = OPENAI) -> Endpoint:
    """Give every request an id, and turn what its endpoint raises into a response.

    The id is ``request.state.request_id``. An endpoint that has read the whole body says so with
    ``request.state.body_pending = False``.
    """

    async def answer(request: Request) -> Response:
        request_id = family.new_id()
        request.state.request_id = request_id
        request.state.body_pending = request.method == "POST"
        try:
            response = await endpoint(request)
        except ClientLeftError:
            response = Response(status_code=_CLIENT_LEFT)
        except MeshError as error:
            response = _refusal(request, family.explain(error, request_id))
        except Exception as error:  # the boundary: a bug must not go unanswered
            log.exception("unexpected error", session_id=request_id)
            response = _refusal(request, family.explain(error, request_id))
        response.headers[family.id_header] = request_id
        return response

    return answer


def _refusal(request: Request, told: Told) -> JSONResponse:
    kind = _LingeringResponse if request.state.body_pending else JSONResponse
    return kind(told.body(), told.status, told.headers)


class _LingeringResponse(JSONResponse):
    """An answer to a request that is still being sent.

    Closing a connection on which more arrives resets it, and the client may never see the answer.
    So the rest is read and dropped until the client stops, for a while.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        start = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
