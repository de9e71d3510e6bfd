"""What the end of a stream means, and how long to go on after one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import structlog

from services.common import telemetry
from services.common.errors import (
    InvalidRequestError,
    MeshError,
    NotFoundError,
    OverloadedError,
    StreamTooLongError,
    UpstreamError,
)
from services.gateway.transcript import Notice

log = structlog.get_logger(__name__)

FIRST_DELAY_S = 0.1
LAST_DELAY_S = 2.0

_SUSPECT_CRASHES = 2
"""Streams that may break on the same audio before it is suspected."""
_REASONS = {
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.FAILED_PRECONDITION: "foreign_checkpoint",
    # A replica that crashed: as RST_STREAM through a proxy, as a bug's own words otherwise. It is
    # also what grpc.aio makes of a stream that ended while something was being written to it.
    grpc.StatusCode.INTERNAL: "internal",
    grpc.StatusCode.UNKNOWN: "internal",
    grpc.StatusCode.CANCELLED: "cancelled",
}
_CRASHES = frozenset({"unavailable", "internal", "cancelled"})
_PERMANENT: dict[grpc.StatusCode, type[MeshError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.OUT_OF_RANGE: StreamTooLongError,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stage is waited for, in seconds."""

    open_s: float
    """For a stream to be accepted."""
    hedge_s: float
    """For the same, before another is asked for beside it."""
    stall_s: float
    """For an answer to what was sent."""
    lost_s: float
    """For progress, from the first stream lost to giving up."""


class StreamLostError(Exception):
    """A stream ended before it was finished; another may go on."""

    def __init__(self, reason: str, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.crashed = crashed


def loss(stage: str, code: grpc.StatusCode, details: str | None, *, opened: bool) -> Exception:
    """The end of a stream: a ``StreamLostError`` if another may go on, or else the session's end.

    Args:
        stage: Whose stream.
        code: Its status.
        details: What the status says.
        opened: Whether the stage had accepted it.

    """
    message = f"{stage}: {details or code.name}"
    if (permanent := _PERMANENT.get(code)) is not None:
        return permanent(message)
    if (reason := _REASONS.get(code)) is None:
        return UpstreamError(message)
    return StreamLostError(reason, message, crashed=opened and reason in _CRASHES)


class Recovery:
    """Counts the streams that a stage has lost, and says when it is enough."""

    def __init__(self, stage: str, lost_s: float, notify: Callable[[Notice], None]) -> None:
        self._stage = stage
        self._lost_s = lost_s
        self._notify = notify
        self._degraded = False
        self._since: float | None = None
        """When the first stream was lost since there was progress; None: none was."""
        self._losses = 0
        self._crashes = 0
        """Streams in a row that broke on the same audio."""
        self._deadly = (0, 0)
        """That audio: from where a successor is silent to the end of what all of them were sent."""

    @property
    def suspect(self) -> bool:
        """Whether the audio may be what breaks the streams."""
        return self._crashes >= _SUSPECT_CRASHES

    def heard(self, sample: int) -> None:
        """A stream has survived the audio before a position."""
        if sample >= self._deadly[1]:
            self._crashes = 0

    def progress(self) -> None:
        """The stage got further than any stream before."""
        self._since = None
        self._losses = 0

    def connected(self) -> None:
        """A stream was accepted."""
        if self._degraded:
            self._degraded = False
            self._tell("RECOVERED", "is back")

    def crashed(self, settled_sample: int, sent_sample: int, error: StreamLostError) -> None:
        """A stream broke.

        Args:
            settled_sample: Position through which the input is accounted for.
            sent_sample: Position through which the stream was sent audio.
            error: How it broke.

        Raises:
            UpstreamError: The audio was suspected before: it is what breaks them.

        """
        if sent_sample <= settled_sample:
            # It was told nothing new: whatever broke it, nothing that was said did.
            self._crashes = 0
            return
        if not self._crashes or settled_sample > self._deadly[0]:
            self._crashes = 0
            self._deadly = settled_sample, sent_sample
        if self.suspect:
            raise UpstreamError(f"{self._stage} failed again on the same audio") from error
        self._crashes += 1
        self._deadly = settled_sample, min(self._deadly[1], sent_sample)

    async def lost(self, error: StreamLostError) -> None:
        """Say that a stream was lost, and wait a little.

        Raises:
            UpstreamError: It has taken too long already.
            OverloadedError: The same, for want of room.

        """
        now = asyncio.get_running_loop().time()
        telemetry.STAGE_RESTARTS.labels(self._stage, error.reason).inc()
        log.warning("stream lost", stage=self._stage, reason=error.reason)
        if self._since is None:
            self._since = now
        if not self._degraded:
            self._degraded = True
            self._tell("DEGRADED", "was lost")
        if now - self._since > self._lost_s:
            if error.reason == "overloaded":
                raise OverloadedError(str(error)) from error
            raise UpstreamError(f"{self._stage} has been lost for too long: {error}") from error
        delay_s = min(FIRST_DELAY_S * 2**self._losses, LAST_DELAY_S)
        self._losses = min(self._losses + 1, 10)
        await asyncio.sleep(delay_s)

    def _tell(self, code: str, what: str) -> None:
        self._notify(Notice(self._stage, code, f"{self._stage} {what}", retryable=True))
