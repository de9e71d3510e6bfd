"""``TranslatorService`` over gRPC: what a stream says, in which order, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from services.common import telemetry
from services.common.admission import Admission
from services.common.batching import Batcher
from services.common.errors import ClientLeftError, InvalidRequestError
from services.common.rpc import Metadata, Send, bidi
from services.common.wire import opening, state_of
from services.common.words import words_from_proto
from services.translator import checkpoint, wire
from services.translator.inbox import Finish, Flush, Inbox, Source
from services.translator.policies.policy import Policy
from services.translator.stream import Event, Stream
from services.translator.translator import Job, Translation, Translator
from voxmesh.common.v1 import stage_pb2
from voxmesh.translator.v1 import translator_pb2 as pb
from voxmesh.translator.v1 import translator_pb2_grpc as rpc

log = structlog.get_logger(__name__)

_MAX_WAITING_WORDS = 2000
"""Beyond that a client waits: ten minutes of speech."""


class TranslatorServicer(rpc.TranslatorServiceServicer):
    """Serves ``TranslatorService``."""

    def __init__(
        self,
        translator: Translator,
        batcher: Batcher[Job, Translation],
        policy: Policy,
        *,
        max_streams: int,
        stopping: asyncio.Event,
        drain_s: float,
    ) -> None:
        """Share one model among streams.

        Args:
            translator: The model.
            batcher: Shares it; its ``run`` is under way.
            policy: Says what is certain of a sentence that is not finished.
            max_streams: Streams served at once.
            stopping: Set when the replica is about to stop.
            drain_s: How long streams are still served then, in seconds.

        """
        self._translator = translator
        self._batcher = batcher
        self._policy = policy
        self._admission = Admission(
            "translator",
            telemetry.Span.TRANSLATOR_STREAM,
            max_streams=max_streams,
            stopping=stopping,
            drain_s=drain_s,
        )
        self._format = checkpoint.format_of(translator.name)

    @bidi
    async def Translate(
        self,
        requests: AsyncIterator[pb.TranslateRequest],
        send: Send[pb.TranslateResponse],
        metadata: Metadata,
    ) -> None:
        opened = (await opening(requests)).open
        with self._admission.admit(opened.session_id, opened.lane, metadata):
            await self._serve(opened, requests, send)

    async def _serve(
        self,
        opened: pb.Open,
        requests: AsyncIterator[pb.TranslateRequest],
        send: Send[pb.TranslateResponse],
    ) -> None:
        pair = wire.pair_of(opened)
        self._translator.check(pair)
        resumed = opened.checkpoint if opened.HasField("checkpoint") else None
        inbox = Inbox(_MAX_WAITING_WORDS)
        with self._batcher.seat(live=True, moved=resumed is not None) as seat:
            stream = Stream(
                self._translator,
                self._batcher,
                seat,
                pair,
                self._policy,
                state=state_of(resumed, self._format),
                waits=inbox.waits,
            )
            log.info("stream opened", resumed=resumed is not None, pair=str(pair))
            await send(pb.TranslateResponse(opened=pb.Opened()))
            async with asyncio.TaskGroup() as tasks:
                farewell = tasks.create_task(self._say_go_away(send), name="translator.go_away")
                tasks.create_task(_listen(requests, inbox), name="translator.listen")
                await self._work(stream, inbox, send)
                farewell.cancel()
            # Outside the group: nothing may follow ``finished``, a farewell neither.
            await self._report(await stream.flush(), send)
        await send(pb.TranslateResponse(finished=stage_pb2.Finished()))
        log.info("stream finished")

    async def _say_go_away(self, send: Send[pb.TranslateResponse]) -> None:
        await send(pb.TranslateResponse(go_away=await self._admission.farewell()))

    async def _work(self, stream: Stream, inbox: Inbox, send: Send[pb.TranslateResponse]) -> None:
        """Translate what waits, until nothing more comes."""
        await self._report(await stream.start(), send)
        while True:
            match await inbox.get():
                case Source(words, tail):
                    await self._report(await stream.hear(words, tail), send)
                case Flush(flush_id):
                    await self._report(await stream.flush(), send)
                    flushed = stage_pb2.Flushed(flush_id=flush_id)
                    await send(pb.TranslateResponse(flushed=flushed))
                case Finish():
                    return

    async def _report(self, events: Sequence[Event], send: Send[pb.TranslateResponse]) -> None:
        for event in events:
            await send(wire.event_to_proto(event, self._format))


async def _listen(requests: AsyncIterator[pb.TranslateRequest], inbox: Inbox) -> None:
    """Put every message into the inbox, until ``finish``.

    Raises:
        InvalidRequestError: A message holds what may not come here.
        ClientLeftError: The stream ended without ``finish``.

    """
    async for request in requests:
        match request.WhichOneof("payload"):
            case "source":
                source = request.source
                words, tail = words_from_proto(source.words), words_from_proto(source.tail)
                await inbox.put(Source(list(words), tail))
            case "flush":
                await inbox.put(Flush(request.flush.flush_id))
            case "finish":
                await inbox.put(Finish())
                return
            case "open":
                raise InvalidRequestError("open comes once, first")
            case None:
                raise InvalidRequestError("a message holds nothing that this replica knows")
    raise ClientLeftError
