"""``DiarizerService`` over gRPC: what a stream says, in which order, and how it ends."""

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
from services.diarizer import checkpoint, wire
from services.diarizer.batcher import Batcher, Seat
from services.diarizer.stream import Event, Stream, Turns
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

log = structlog.get_logger(__name__)


class DiarizerServicer(rpc.DiarizerServiceServicer):
    """Serves ``DiarizerService``."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        max_streams: int,
        max_speakers: int,
        look_ahead: int,
        stopping: asyncio.Event,
        drain_s: float,
    ) -> None:
        """Share one model among streams.

        Args:
            batcher: The model; its ``run`` is under way.
            max_streams: Streams served at once.
            max_speakers: Most speakers in a stream that does not say how many there can be.
            look_ahead: How much audio behind a position is heard before it is decided, in samples,
                unless a stream says otherwise.
            stopping: Set when the replica is about to stop.
            drain_s: How long streams are still served then, in seconds.

        """
        self._batcher = batcher
        self._max_speakers = max_speakers
        self._look_ahead = look_ahead
        self._admission = Admission(
            "diarizer",
            telemetry.Span.DIARIZER_STREAM,
            max_streams=max_streams,
            stopping=stopping,
            drain_s=drain_s,
        )
        self._format = checkpoint.format_of(batcher.diarizer)

    @bidi
    async def Diarize(
        self,
        requests: AsyncIterator[pb.DiarizeRequest],
        send: Send[pb.DiarizeResponse],
        metadata: Metadata,
    ) -> None:
        opened = (await opening(requests)).open
        live = opened.config.pace != pb.PACE_FILE
        with (
            self._admission.admit(opened.session_id, opened.lane, metadata),
            self._batcher.seat(live=live, moved=opened.HasField("checkpoint")) as seat,
        ):
            await self._serve(opened, seat, requests, send)

    async def _serve(
        self,
        opened: pb.Open,
        seat: Seat,
        requests: AsyncIterator[pb.DiarizeRequest],
        send: Send[pb.DiarizeResponse],
    ) -> None:
        resumed = opened.checkpoint if opened.HasField("checkpoint") else None
        stream = Stream(
            self._batcher,
            seat,
            look_ahead=wire.look_ahead_of(opened.config, self._look_ahead),
            wishes=wire.wishes_of(opened.config, self._max_speakers),
            enrolled=wire.enrolled_of(opened.config),
            first_sample=first_sample_of(opened.first_sample, resumed),
            state=state_of(resumed, self._format),
        )
        await stream.start()
        log.info("stream opened", resumed=resumed is not None)
        await send(pb.DiarizeResponse(opened=pb.Opened()))
        async with asyncio.TaskGroup() as tasks:
            farewell = tasks.create_task(self._say_go_away(send), name="diarizer.go_away")
            await self._listen(stream, requests, send)
            farewell.cancel()
        # Outside the group: nothing may follow ``finished``, a farewell neither.
        await self._report(await stream.flush(), send)
        await send(pb.DiarizeResponse(finished=stage_pb2.Finished()))
        log.info("stream finished", end_sample=stream.end_sample)

    async def _say_go_away(self, send: Send[pb.DiarizeResponse]) -> None:
        await send(pb.DiarizeResponse(go_away=await self._admission.farewell()))

    async def _listen(
        self,
        stream: Stream,
        requests: AsyncIterator[pb.DiarizeRequest],
        send: Send[pb.DiarizeResponse],
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
                    telemetry.AUDIO_SECONDS.labels("diarizer").inc(seconds(len(heard)))
                    await self._report(events, send)
                case "gap":
                    num_samples = gap_samples_of(request.gap)
                    events = await stream.gap(request.gap.first_sample, num_samples)
                    await self._report(events, send)
                case "flush":
                    await self._report(await stream.flush(), send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(pb.DiarizeResponse(flushed=flushed))
                case "finish":
                    return
                case "open":
                    raise InvalidRequestError("open comes once, first")
                case None:
                    raise InvalidRequestError("a message holds nothing that this replica knows")
        raise ClientLeftError

    async def _report(self, events: Sequence[Event], send: Send[pb.DiarizeResponse]) -> None:
        for event in events:
            if isinstance(event, Turns):
                await send(wire.turns_to_proto(event))
            else:
                await send(wire.snapshot_to_proto(event, self._format))
