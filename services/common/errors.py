"""Every error a service raises on purpose, and the gRPC status it becomes.

* MeshError
  + InvalidRequestError     INVALID_ARGUMENT      change the request
  + NotFoundError           NOT_FOUND             name something that is there
  + UnauthenticatedError    UNAUTHENTICATED       present a key that is known
  + SupersededError         ABORTED               nothing: the session goes on elsewhere
  + CheckpointError         FAILED_PRECONDITION   start afresh, or resume on the same engine
  + StreamTooLongError      OUT_OF_RANGE          open a new stream
  + OverloadedError         RESOURCE_EXHAUSTED    retry after a delay
    - SaturatedError        RESOURCE_EXHAUSTED    retry after a delay
  + DrainingError           UNAVAILABLE           retry on another replica
  + DeviceError             UNAVAILABLE           retry on another replica
  + UpstreamError           UNAVAILABLE           retry: a service we call did not answer

Anything else that escapes a handler is a bug: it is logged once and becomes INTERNAL.
``ClientLeftError`` is no failure: it ends the tasks of a call whose client is gone.
"""

from typing import ClassVar

import grpc


class MeshError(Exception):
    """Base of every error a service raises on purpose."""

    code: ClassVar[grpc.StatusCode]
    reason: ClassVar[str]


class InvalidRequestError(MeshError):
    """The request can never succeed as written."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class NotFoundError(MeshError):
    """What the request names does not exist here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class UnauthenticatedError(MeshError):
    """No key was presented, or none that is known."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class SupersededError(MeshError):
    """Another connection of the client goes on with the session."""

    code = grpc.StatusCode.ABORTED
    reason = "SUPERSEDED"


class CheckpointError(MeshError):
    """The checkpoint was written by another engine, or is damaged."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FOREIGN_CHECKPOINT"


class StreamTooLongError(MeshError):
    """The audio passed the longest session that is served."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "STREAM_TOO_LONG"


class OverloadedError(MeshError):
    """Admission refused: the replica already serves its limit."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class SaturatedError(OverloadedError):
    """Admission refused: slots are free, but one stream more would make all too slow."""

    reason = "SATURATED"


class DrainingError(MeshError):
    """The replica is stopping and takes no new streams."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "DRAINING"


class DeviceError(MeshError):
    """The model or its device failed; the stream can go on elsewhere."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "DEVICE_FAILED"


class UpstreamError(MeshError):
    """A service this one calls did not answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UPSTREAM_FAILED"


class ClientLeftError(Exception):
    """The client is gone without having said ``finish``; its work is worth nothing any more."""
