"""``VadService`` over gRPC: what a stream says, in which order, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from services.common import telemetry
from services.common.admission import Admission
from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
)
from services.common.rpc import Metadata, Send, bidi
from services.common.timeline import seconds
from services.common.wire import (
    first_sample_of,
    gap_samples_of,
    opening,
    samples_of,
    state_of,
)
from services.vad import checkpoint, wire
from services.vad.batcher import Batcher
from services.vad.endpointer import Endpointing, Event
from services.vad.stream import Stream
from voxmesh.common.v1 import stage_pb2
from voxmesh.vad.v1 import vad_pb2 as pb
from voxmesh.vad.v1 import vad_pb2_grpc as rpc

log = structlog.get_logger(__name__)


class VadServicer(rpc.VadServiceServicer):
    """Serves ``VadService``."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        max_streams: int,
        defaults: Endpointing,
        stopping: asyncio.Event,
        drain_s: float,
    ) -> None:
        """Share one model among streams.

        Args:
            batcher: The model; its ``run`` is under way.
            max_streams: Streams served at once.
            defaults: What a stream gets where it asks for nothing.
            stopping: Set when the replica is about to stop.
            drain_s: How long streams are still served then, in seconds.

        """
        self._batcher = batcher
        self._defaults = defaults
        self._admission = Admission(
            "vad",
            telemetry.Span.VAD_STREAM,
            max_streams=max_streams,
            stopping=stopping,
            drain_s=drain_s,
        )
        self._format = checkpoint.format_of(batcher.detector)

    @bidi
    async def Detect(
        self,
        requests: AsyncIterator[pb.DetectRequest],
        send: Send[pb.DetectResponse],
        metadata: Metadata,
    ) -> None:
        opened = (await opening(requests)).open
        with self._admission.admit(opened.session_id, opened.lane, metadata):
            await self._serve(opened, requests, send)

    async def _serve(
        self,
        opened: pb.Open,
        requests: AsyncIterator[pb.DetectRequest],
        send: Send[pb.DetectResponse],
    ) -> None:
        resumed = opened.checkpoint if opened.HasField("checkpoint") else None
        stream = Stream(
            self._batcher,
            wire.endpointing_of(opened.config, self._defaults),
            first_sample_of(opened.first_sample, resumed),
            state_of(resumed, self._format),
        )
        log.info("stream opened", resumed=resumed is not None)
        await send(pb.DetectResponse(opened=pb.Opened()))
        async with asyncio.TaskGroup() as tasks:
            farewell = tasks.create_task(self._say_go_away(send), name="vad.go_away")
            await self._listen(stream, requests, send)
            farewell.cancel()
        # Outside the group: nothing may follow ``finished``, a farewell neither.
        await self._report(stream, await stream.finish(), send)
        await send(pb.DetectResponse(finished=stage_pb2.Finished()))
        log.info("stream finished", end_sample=stream.end_sample)

    async def _say_go_away(self, send: Send[pb.DetectResponse]) -> None:
        await send(pb.DetectResponse(go_away=await self._admission.farewell()))

    async def _listen(
        self,
        stream: Stream,
        requests: AsyncIterator[pb.DetectRequest],
        send: Send[pb.DetectResponse],
    ) -> None:
        """Hear one message after the other until ``finish``; while one is heard, the client waits.

        Raises:
            ClientLeftError: The stream ended without it.

        """
        async for request in requests:
            match request.WhichOneof("payload"):
                case "audio":
                    heard = samples_of(request.audio)
                    events = await stream.audio(request.audio.first_sample, heard)
                    telemetry.AUDIO_SECONDS.labels("vad").inc(seconds(len(heard)))
                    await self._report(stream, events, send)
                case "gap":
                    num_samples = gap_samples_of(request.gap)
                    events = await stream.gap(request.gap.first_sample, num_samples)
                    await self._report(stream, events, send)
                case "flush":
                    await self._report(stream, await stream.flush(), send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(pb.DetectResponse(flushed=flushed))
                case "finish":
                    return
                case "open":
                    raise InvalidRequestError("open comes once, first")
                case None:
                    raise InvalidRequestError("a message holds nothing that this replica knows")
        raise ClientLeftError

    async def _report(
        self, stream: Stream, events: Sequence[Event], send: Send[pb.DetectResponse]
    ) -> None:
        """Say what was found, how far the stream is, and where to resume, in this order."""
        for event in events:
            await send(wire.event_to_proto(event))
        if heard := stream.news():
            await send(wire.heard_to_proto(heard))
        if snapshot := stream.snapshot():
            await send(wire.snapshot_to_proto(snapshot, self._format))
