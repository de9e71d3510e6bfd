"""``AsrService`` over gRPC: what a stream says, in which order, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from services.asr import checkpoint, wire
from services.asr.events import Committed, Event, Flushed, GuardFired, LanguageKnown, Moved, Tail
from services.asr.recognizer import Hypothesis, Recognizer, Window
from services.asr.scheduler import Scheduler
from services.asr.transcriber import Cadence, Step, Transcriber
from services.asr.turns import Seat
from services.common import telemetry
from services.common.admission import Admission
from services.common.errors import (
    CheckpointError,
    ClientLeftError,
    InvalidRequestError,
)
from services.common.rpc import Context, Metadata, Send, bidi
from services.common.timeline import samples, seconds
from services.common.wire import (
    first_sample_of,
    gap_samples_of,
    opening,
    samples_of,
    state_of,
)
from voxmesh.asr.v1 import asr_pb2 as pb
from voxmesh.asr.v1 import asr_pb2_grpc as rpc
from voxmesh.common.v1 import stage_pb2

log = structlog.get_logger(__name__)

_MAX_BACKLOG_SAMPLES = samples(60)
"""Audio that may wait to be decoded; a client that sends more waits."""
_REASSURE_S = 2.0
"""A client whose window waits longer than this for its turn is told so, and again."""
_ALIVE_S = 5.0
"""A model that has answered nobody for so long may hang: then nobody is told anything."""
_QUIET_CHECKPOINT_SAMPLES = samples(1)
"""While nobody speaks, the place to resume from moves on this often."""


@dataclass(frozen=True, slots=True)
class Paces:
    """How live streams and files are decoded."""

    live: Cadence
    file: Cadence


class AsrServicer(rpc.AsrServiceServicer):
    """Serves ``AsrService``."""

    def __init__(
        self,
        recognizer: Recognizer,
        scheduler: Scheduler,
        *,
        model: str,
        paces: Paces,
        max_streams: int,
        stopping: asyncio.Event,
        drain_s: float,
    ) -> None:
        """Share one model among streams.

        Args:
            recognizer: The model.
            scheduler: What decodes with it; its ``run`` is under way.
            model: The model's catalogue name.
            paces: How live streams and files are decoded.
            max_streams: Streams served at once.
            stopping: Set when the replica is about to stop.
            drain_s: How long streams are still served then, in seconds.

        """
        self._recognizer = recognizer
        self._scheduler = scheduler
        self._model = model
        self._paces = {pb.PACE_FILE: paces.file}
        self._live = paces.live
        self._max_streams = max_streams
        self._admission = Admission(
            "asr",
            telemetry.Span.ASR_STREAM,
            max_streams=max_streams,
            stopping=stopping,
            drain_s=drain_s,
        )
        self._format = f"whisper-{model}/{checkpoint.VERSION}"

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        return wire.description(self._recognizer, self._model, self._max_streams)

    @bidi
    async def Transcribe(
        self,
        requests: AsyncIterator[pb.TranscribeRequest],
        send: Send[pb.TranscribeResponse],
        metadata: Metadata,
    ) -> None:
        opened = (await opening(requests)).open
        live = opened.config.pace != pb.PACE_FILE
        with (
            self._admission.admit(opened.session_id, opened.lane, metadata),
            self._scheduler.seat(live=live, moved=opened.moved) as seat,
        ):
            await self._serve(opened, seat, requests, send)

    async def _serve(
        self,
        opened: pb.Open,
        seat: Seat,
        requests: AsyncIterator[pb.TranscribeRequest],
        send: Send[pb.TranscribeResponse],
    ) -> None:
        stream = _Stream(
            self._transcriber(opened), self._scheduler, seat, send, format_name=self._format
        )
        log.info("stream opened", resumed=opened.HasField("checkpoint"), live=seat.live)
        await send(pb.TranscribeResponse(opened=pb.Opened(model=self._model)))
        async with asyncio.TaskGroup() as tasks:
            farewell = tasks.create_task(self._say_go_away(send), name="asr.go_away")
            reassurance = tasks.create_task(stream.reassure(), name="asr.reassure")
            tasks.create_task(stream.receive(requests), name="asr.receive")
            await stream.decode()
            farewell.cancel()
            reassurance.cancel()
        # Outside the group: nothing may follow ``finished``, a farewell neither.
        await send(pb.TranscribeResponse(finished=stage_pb2.Finished()))
        log.info("stream finished", end_sample=stream.heard_sample)

    def _transcriber(self, opened: pb.Open) -> Transcriber:
        config = opened.config
        task = wire.check_config(config, self._recognizer, self._model)
        resumed = opened.checkpoint if opened.HasField("checkpoint") else None
        first_sample = first_sample_of(opened.first_sample, resumed)
        languages = self._recognizer.language_codes
        state = self._resumed_state(resumed)
        pace = self._paces.get(config.pace, self._live)
        told = wire.prompt_text(config)
        return Transcriber(
            wire.cadence_of(config, pace),
            first_sample=first_sample,
            language_code=config.language_code or (languages[0] if len(languages) == 1 else ""),
            task=task,
            prompt=self._recognizer.encode_text(told) if told else (),
            temperature=round(config.temperature, 6),
            state=state,
        )

    def _resumed_state(self, resumed: stage_pb2.Checkpoint | None) -> checkpoint.State | None:
        encoded = state_of(resumed, self._format)
        if encoded is None:
            return None
        state = checkpoint.decode(encoded)
        if state.language_code not in {"", *self._recognizer.language_codes}:
            raise CheckpointError(f"the model has no language {state.language_code!r}")
        return state

    async def _say_go_away(self, send: Send[pb.TranscribeResponse]) -> None:
        await send(pb.TranscribeResponse(go_away=await self._admission.farewell()))


class _Stream:
    """One stream: a task that hears and a task that decodes, with the transcriber between them."""

    def __init__(
        self,
        transcriber: Transcriber,
        scheduler: Scheduler,
        seat: Seat,
        send: Send[pb.TranscribeResponse],
        *,
        format_name: str,
    ) -> None:
        self._transcriber = transcriber
        self._scheduler = scheduler
        self._send = send
        self._seat = seat
        self._format = format_name
        self._changed = asyncio.Condition()
        self._finished = False
        self._num_decoded = 0
        self._resumable_from = transcriber.state.window_first_sample

    @property
    def heard_sample(self) -> int:
        """Position after everything received."""
        return self._transcriber.heard_sample

    async def receive(self, requests: AsyncIterator[pb.TranscribeRequest]) -> None:
        """Hear until ``finish``; while too much waits to be decoded, the client waits.

        Raises:
            ClientLeftError: The stream ended without it.

        """
        async for request in requests:
            async with self._changed:
                await self._changed.wait_for(self._has_room)
                self._hear(request)
                self._changed.notify_all()
            if self._finished:
                return
        raise ClientLeftError

    async def decode(self) -> None:
        """Decode whenever it is due, until everything is committed after ``finish``."""
        while (step := await self._due()) is not None:
            hypothesis = None
            if step.window is not None:
                hypothesis = await self._recognized(step, step.window)
                if hypothesis is None:
                    continue
                self._num_decoded += 1
                if self._seat.live:
                    lag_s = seconds(self._transcriber.backlog_samples)
                    telemetry.STREAM_LAG_SECONDS.labels("asr").observe(lag_s)
            async with self._changed:
                events = self._transcriber.complete(step, hypothesis)
                self._changed.notify_all()
            for event in events:
                await self._report(event)

    async def _recognized(self, step: Step, window: Window) -> Hypothesis | None:
        """What the model makes of a step's window; None: somebody waits for more than is in it.

        What a worker has begun it brings to an end, for nothing; another one may be free.
        """
        async with asyncio.TaskGroup() as tasks:
            final = step.final or step.sure_at is not None
            recognizing = tasks.create_task(
                self._scheduler.recognize(window, self._seat, final=final), name="asr.recognize"
            )
            overtaken = tasks.create_task(self._overtaken(step), name="asr.overtaken")
            await asyncio.wait((recognizing, overtaken), return_when=asyncio.FIRST_COMPLETED)
            recognizing.cancel()
            overtaken.cancel()
        return None if recognizing.cancelled() else recognizing.result()

    async def _overtaken(self, step: Step) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._transcriber.is_overtaken(step))

    async def reassure(self) -> None:
        """Say every now and then that a window waits for its turn, if it does."""
        before = -1
        while True:
            await asyncio.sleep(_REASSURE_S)
            waits = self._seat.waiting and self._num_decoded == before
            if waits and self._scheduler.idle_s < _ALIVE_S:
                await self._send(pb.TranscribeResponse(queued=pb.Queued()))
            before = self._num_decoded

    def _hear(self, request: pb.TranscribeRequest) -> None:
        match request.WhichOneof("payload"):
            case "audio":
                heard = samples_of(request.audio)
                self._transcriber.push(request.audio.first_sample, heard)
                telemetry.AUDIO_SECONDS.labels("asr").inc(seconds(len(heard)))
            case "gap":
                num_samples = gap_samples_of(request.gap)
                self._transcriber.skip(request.gap.first_sample, num_samples)
            case "flush":
                self._transcriber.flush(request.flush.flush_id)
            case "finish":
                self._transcriber.finish()
                self._finished = True
            case "open":
                raise InvalidRequestError("open comes once, first")
            case None:
                raise InvalidRequestError("a message holds nothing that this replica knows")

    def _has_room(self) -> bool:
        return self._transcriber.backlog_samples < _MAX_BACKLOG_SAMPLES

    async def _due(self) -> Step | None:
        """The next decoding; None when there will be none any more."""
        while True:
            async with self._changed:
                # Asked once per change: a step that is due holds a copy of its window.
                while (step := self._next_step()) is None and not self._finished:
                    state = self._transcriber.state
                    moved = state.window_first_sample - self._resumable_from
                    if moved >= _QUIET_CHECKPOINT_SAMPLES:
                        break
                    await self._changed.wait()
                else:
                    return step
            self._resumable_from = state.window_first_sample
            await self._send_checkpoint(state)

    def _next_step(self) -> Step | None:
        return self._transcriber.next_step(self._scheduler.step_samples)

    async def _send_checkpoint(self, state: checkpoint.State) -> None:
        place = wire.checkpoint_to_proto(state, self._format)
        await self._send(pb.TranscribeResponse(checkpoint=place))

    async def _report(self, event: Event) -> None:
        match event:
            case Committed(words=words, state=state):
                telemetry.WORDS_COMMITTED.inc(len(words))
                self._resumable_from = state.window_first_sample
                await self._send(wire.commit_to_proto(event, self._format))
            case Moved(state=state):
                self._resumable_from = state.window_first_sample
                await self._send_checkpoint(state)
            case Tail():
                await self._send(wire.tail_to_proto(event))
            case LanguageKnown():
                await self._send(wire.language_to_proto(event))
            case Flushed(flush_id=flush_id):
                flushed = stage_pb2.Flushed(flush_id=flush_id)
                await self._send(pb.TranscribeResponse(flushed=flushed))
            case GuardFired(verdict=verdict):
                telemetry.GUARDS_FIRED.labels(verdict).inc()
