"""Who gets in: how many streams a replica serves at once, and when it takes no more."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from google.protobuf.duration_pb2 import Duration

from services.common import telemetry
from services.common.errors import DrainingError, OverloadedError
from services.common.rpc import Metadata
from voxmesh.common.v1 import stage_pb2


class Slots:
    """A number of slots; a stream holds one from its first message to its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._taken

    def check(self) -> None:
        """See whether one is left.

        Raises:
            OverloadedError: Every slot is taken.

        """
        if self._taken >= self._limit:
            raise OverloadedError(f"all {self._limit} slots are taken")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a slot for the length of the ``with`` block.

        Raises:
            OverloadedError: Every slot is taken.

        """
        self.check()
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Admission:
    """The door of a stage: a stream that is let in is counted, traced and named in the logs."""

    def __init__(
        self,
        stage: str,
        span: telemetry.Span,
        *,
        max_streams: int,
        stopping: asyncio.Event,
        drain_s: float,
    ) -> None:
        """Open the door.

        Args:
            stage: Its name in metrics.
            span: What a stream of it is called in traces.
            max_streams: Streams served at once.
            stopping: Set when the replica is about to stop.
            drain_s: How long streams are still served then, in seconds.

        """
        self._stage = stage
        self._span = span
        self._slots = Slots(max_streams)
        self._stopping = stopping
        self._drain_s = drain_s

    @contextmanager
    def admit(self, session_id: str, lane: int, metadata: Metadata) -> Iterator[None]:
        """Serve a stream in the ``with`` block, which may yet refuse it.

        Raises:
            DrainingError: The replica is stopping.
            OverloadedError: Every slot is taken.

        """
        try:
            if self._stopping.is_set():
                raise DrainingError("the replica is stopping")
            with (
                self._slots.hold(),
                telemetry.STREAMS.labels(self._stage).track_inprogress(),
                structlog.contextvars.bound_contextvars(session_id=session_id, lane=lane),
                telemetry.span(self._span, session_id, parent=metadata),
            ):
                yield
        except (OverloadedError, DrainingError) as error:
            telemetry.STREAMS_REFUSED.labels(self._stage, error.reason.lower()).inc()
            raise

    async def farewell(self) -> stage_pb2.GoAway:
        """Wait until the replica is told to stop; what every stream is then to be told."""
        await self._stopping.wait()
        deadline = Duration()
        deadline.FromNanoseconds(round(self._drain_s * 1e9))
        return stage_pb2.GoAway(deadline=deadline)
