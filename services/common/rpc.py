"""The boundary between a gRPC call and the coroutine that serves it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    MeshError,
    OverloadedError,
)

log = structlog.get_logger(__name__)

RETRY_DELAY_S = 1
"""What a refused caller is told to wait, in seconds."""

Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")

Send: TypeAlias = Callable[[Response], Awaitable[None]]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Mapping[str, str]
Handler: TypeAlias = Callable[
    [Servicer, AsyncIterator[Request], Send[Response], Metadata], Awaitable[None]
]
Method: TypeAlias = Callable[[Servicer, AsyncIterator[Request], Context], AsyncIterator[Response]]


def bidi(handler: Handler[Servicer, Request, Response]) -> Method[Servicer, Request, Response]:
    """Serve a bidirectional stream with a coroutine that receives and sends.

    The handler is called with the requests, a way to send, and the metadata of the call.

    The handler may open a TaskGroup: it never yields, so its children end with the call
    (PEP 789). ``send`` waits while the client is slow, which is the stream's backpressure, and
    raises ``ClientLeftError`` when the client is gone: an ordinary exception, because a
    ``CancelledError`` in one child would not stop its siblings.
    """

    @functools.wraps(handler)
    async def serve(self: Servicer, requests: AsyncIterator[Request], context: Context) -> None:
        writing = asyncio.Lock()

        async def send(response: Response) -> None:
            try:
                # gRPC takes one write at a time; several tasks of a call may send.
                async with writing:
                    await context.write(response)
            except grpc.aio.InternalError:
                # grpc.aio reports a client that left during a blocked write this way.
                raise ClientLeftError from None
            except grpc.aio.UsageError:
                # ... and this way when it left before the write.
                raise ClientLeftError from None

        metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        try:
            await handler(self, _Readable(requests), send, metadata)
        except Exception as error:  # noqa: BLE001 -- the one boundary: every error becomes a status
            await _abort(context, error)

    # grpc.aio accepts a coroutine that writes; the generated stub types only the generator.
    return cast("Method[Servicer, Request, Response]", serve)


class _Readable(AsyncIterator[Request]):
    """The requests of a call. Bytes that are no message are the client's error, not ours."""

    def __init__(self, requests: AsyncIterator[Request]) -> None:
        self._requests = requests

    async def __anext__(self) -> Request:
        try:
            return await anext(self._requests)
        except DecodeError:
            raise InvalidRequestError("a message cannot be read") from None


async def _abort(context: Context, error: Exception) -> None:
    found = list(leaves(error))
    if not all(isinstance(leaf, ClientLeftError | MeshError) for leaf in found):
        # Also when it comes with an error of ours: it is a bug all the same.
        log.error("unexpected error", exc_info=error)
    if any(isinstance(leaf, ClientLeftError) for leaf in found):
        # Nobody reads this, unless the client closed its side without having finished.
        await context.abort(grpc.StatusCode.CANCELLED, "the stream ended without finish")
        return
    known = next((leaf for leaf in found if isinstance(leaf, MeshError)), None)
    if known is None:
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        return
    await context.abort_with_status(status_of(known))


def status_of(error: MeshError) -> grpc.Status:
    """The rich gRPC status of an error: its code, its message, its reason, a delay to retry."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain="voxmesh"))]
    if isinstance(error, OverloadedError):
        delay = Duration(seconds=RETRY_DELAY_S)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    code: int = error.code.value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=str(error), details=details))


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a possibly nested ExceptionGroup, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
