"""An engine without weights, streams to follow, a replica to call and what it is called with."""

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import grpc.aio
import numpy as np

from services.common.audio import BYTES_PER_SAMPLE, FloatArray
from services.common.channel import open_channel
from services.common.errors import CheckpointError, DeviceError, InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer.batcher import Batcher
from services.diarizer.diarizer import Diarizer, Finding, Memory, Step, Wishes
from services.diarizer.engines.sortformer import Sortformer
from services.diarizer.engines.sortformer_memory import SortformerMemory
from services.diarizer.servicer import DiarizerServicer
from services.diarizer.stream import Event, Snapshot, Stream, Turns
from voxmesh.common.v1 import audio_pb2, stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

LOOK_AHEAD = SAMPLE_RATE_HZ
DRAIN_S = 7.0
FRAME = 200
"""Samples in a frame of the engine without weights."""
POISON = -1.0
"""A sample that breaks it."""

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.DiarizeRequest, pb.DiarizeResponse]"
Part: TypeAlias = FloatArray | int | None
"""What a stream is given: audio, the length of a gap, or a flush."""
Span: TypeAlias = tuple[int, int, int]
"""A speaker, and where they start and stop speaking."""

FINISH = pb.DiarizeRequest(finish=stage_pb2.Finish())


@dataclass(frozen=True, slots=True)
class LevelMemory:
    """The levels known, in order of appearance, and how far they are decided."""

    levels: tuple[int, ...]
    settled_sample: int

    def dump(self) -> bytes:
        return struct.pack("<q", self.settled_sample) + bytes(self.levels)


class LevelDiarizer:
    """Takes a tenth of full scale for one person, two tenths for another, and so on.

    Other ways to know people can be given: who speaks in a frame, from 1; 0: nobody.
    """

    name = "level"
    step_samples = 8 * FRAME
    context_samples = 100 * FRAME
    poison = POISON

    def __init__(self, level_of: Callable[[FloatArray], int] | None = None) -> None:
        self._level_of = level_of or _level_of
        self.batches: list[list[int]] = []
        """The end of each step of each batch."""
        self.gate = threading.Event()
        """Cleared: it hangs."""
        self.gate.set()
        self.running = 0
        self._lock = threading.Lock()

    def start(self, enrolled: Sequence[FloatArray]) -> LevelMemory:
        levels = tuple(self._level_of(clip) for clip in enrolled)
        if 0 in levels:
            raise InvalidRequestError("somebody is enrolled with silence")
        return LevelMemory(levels, 0)

    def paused(self, memory: Memory, at_sample: int) -> LevelMemory:
        assert isinstance(memory, LevelMemory)
        return LevelMemory(memory.levels, at_sample)

    def load(self, data: bytes) -> LevelMemory:
        if len(data) < 8:
            raise CheckpointError("the checkpoint is damaged: it holds no levels")
        return LevelMemory(tuple(data[8:]), *struct.unpack("<q", data[:8]))

    def bucket(self, step: Step) -> int:
        return len(step.audio)

    def advance(self, steps: Sequence[Step]) -> list[Finding]:
        with self._lock:
            self.running += 1
            self.batches.append([step.end_sample for step in steps])
        assert self.gate.wait(20), "the test left the model hanging"
        with self._lock:
            self.running -= 1
        if any((step.audio == self.poison).any() for step in steps):
            raise DeviceError("a bad step")
        return [self._find(step) for step in steps]

    def _find(self, step: Step) -> Finding:
        memory = step.memory
        assert isinstance(memory, LevelMemory)
        first, end = memory.settled_sample, step.end_sample
        inner = range((first // FRAME + 1) * FRAME, end, FRAME)
        edges = np.array([first, *inner, end], np.int64)
        heard = [
            self._level_of(step.audio[low - step.first_sample : high - step.first_sample])
            for low, high in pairwise(edges.tolist())
        ]
        settled = max(first, (end - step.look_ahead) // FRAME * FRAME) if step.look_ahead else end
        levels = list(memory.levels)
        for level in heard:
            if level and level not in levels and len(levels) < step.wishes.max_speakers:
                levels.append(level)
        activity = np.array([[level == known for known in levels] for level in heard], np.float32)
        known = {level for edge, level in zip(edges, heard, strict=False) if edge < settled}
        kept = tuple(level for level in levels if level in {*memory.levels, *known})
        return Finding(LevelMemory(kept, settled), activity.reshape(len(heard), len(levels)), edges)


def _level_of(heard: FloatArray) -> int:
    return round(float(np.abs(heard).max(initial=0)) * 10)


@asynccontextmanager
async def running(
    diarizer: Diarizer, *, workers: int = 1, max_batch: int = 8
) -> AsyncIterator[Batcher]:
    batcher = Batcher(diarizer, workers=workers, max_batch=max_batch)
    work = asyncio.create_task(batcher.run(), name="batcher")
    try:
        yield batcher
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


def length_of(part: Part) -> int:
    return 0 if part is None else part if isinstance(part, int) else len(part)


async def tell(
    batcher: Batcher,
    parts: Sequence[Part],
    *,
    wishes: Wishes | None = None,
    enrolled: Sequence[FloatArray] = (),
    look_ahead: int = LOOK_AHEAD,
    resumed: Snapshot | None = None,
) -> list[Event]:
    """What a stream says of these parts, and at its end.

    One that goes on from a snapshot is given those that follow it.
    """
    with batcher.seat(live=True, moved=True) as seat:
        stream = Stream(
            batcher,
            seat,
            look_ahead=look_ahead,
            wishes=wishes or Wishes(20),
            enrolled=tuple(enrolled),
            first_sample=resumed.replay_from_sample if resumed else 0,
            state=resumed.state if resumed else None,
        )
        await stream.start()
        events: list[Event] = []
        for part in parts:
            if part is None:
                events += await stream.flush()
            elif isinstance(part, int):
                events += await stream.gap(stream.end_sample, part)
            else:
                events += await stream.audio(stream.end_sample, part)
        return events + await stream.flush()


async def follow(diarizer: Diarizer, *parts: Part) -> list[Event]:
    """What one stream says of these parts."""
    async with running(diarizer) as batcher:
        return await tell(batcher, parts)


def rest_of(parts: Iterable[Part], first_sample: int) -> list[Part]:
    """What comes behind a position."""
    rest: list[Part] = []
    begin = 0
    for part in parts:
        skipped = max(0, first_sample - begin)
        begin += length_of(part)
        if part is None:
            rest += [part] if not skipped else []
        elif skipped < length_of(part):
            rest.append(part - skipped if isinstance(part, int) else part[skipped:])
    return rest


def said(events: Iterable[Event]) -> list[Turns]:
    return [event for event in events if isinstance(event, Turns)]


def snapshots(events: Iterable[Event]) -> list[Snapshot]:
    return [event for event in events if isinstance(event, Snapshot)]


def settled(events: Iterable[Event], *, nearer_than: int = 1) -> list[Span]:
    """Who spoke when, for good: pieces of a turn made one, and turns that nearly touch."""
    spans: list[Span] = []
    for turns in said(events):
        for turn in turns.turns:
            end = min(turn.end_sample, turns.settled_sample)
            if turn.first_sample < end:
                spans.append((turn.speaker, turn.first_sample, end))
    joined: list[Span] = []
    for speaker, first, end in sorted(spans):
        if joined and joined[-1][0] == speaker and first - joined[-1][2] < nearer_than:
            joined[-1] = (speaker, joined[-1][1], max(end, joined[-1][2]))
        else:
            joined.append((speaker, first, end))
    return sorted(joined, key=lambda span: span[1])


@dataclass(frozen=True, slots=True)
class Replica:
    """A server in this process, and a way to call it."""

    stub: rpc.DiarizerServiceStub
    batcher: Batcher
    stopping: asyncio.Event


@asynccontextmanager
async def serving(
    diarizer: Diarizer, folder: Path, *, max_streams: int = 100, max_speakers: int = 20
) -> AsyncIterator[Replica]:
    stopping = asyncio.Event()
    async with running(diarizer) as batcher:
        servicer = DiarizerServicer(
            batcher,
            max_streams=max_streams,
            max_speakers=max_speakers,
            look_ahead=LOOK_AHEAD,
            stopping=stopping,
            drain_s=DRAIN_S,
        )
        server = grpc.aio.server()
        rpc.add_DiarizerServiceServicer_to_server(servicer, server)
        address = f"unix:{folder}/diarizer.sock"
        server.add_insecure_port(address)
        await server.start()
        async with open_channel(address) as channel:
            yield Replica(rpc.DiarizerServiceStub(channel), batcher, stopping)
        await server.stop(grace=0)


def levels(*parts: tuple[int, int]) -> FloatArray:
    """Pieces of (tenths of full scale, num_samples)."""
    return np.concatenate([np.full(num, level / 10, np.float32) for level, num in parts])


def tone(*parts: tuple[int, int]) -> bytes:
    """The same as s16le."""
    return (levels(*parts) * 32767).astype("<i2").tobytes()


def opening(
    first_sample: int = 0,
    *,
    config: pb.DiarizeConfig | None = None,
    checkpoint: stage_pb2.Checkpoint | None = None,
) -> pb.DiarizeRequest:
    return pb.DiarizeRequest(
        open=pb.Open(
            session_id="s1", first_sample=first_sample, config=config, checkpoint=checkpoint
        )
    )


def audio(first_sample: int, pcm: bytes) -> pb.DiarizeRequest:
    return pb.DiarizeRequest(audio=audio_pb2.AudioFrame(first_sample=first_sample, pcm=pcm))


def gap(first_sample: int, num_samples: int) -> pb.DiarizeRequest:
    return pb.DiarizeRequest(gap=audio_pb2.Gap(first_sample=first_sample, num_samples=num_samples))


def flush(flush_id: int) -> pb.DiarizeRequest:
    return pb.DiarizeRequest(flush=stage_pb2.Flush(flush_id=flush_id))


def cut(pcm: bytes, num_samples: int, first_sample: int = 0) -> Iterator[pb.DiarizeRequest]:
    """Audio in messages of so many samples."""
    size = num_samples * BYTES_PER_SAMPLE
    for start in range(0, len(pcm), size):
        yield audio(first_sample + start // BYTES_PER_SAMPLE, pcm[start : start + size])


async def converse(
    stub: rpc.DiarizerServiceStub, messages: Iterable[pb.DiarizeRequest]
) -> list[pb.DiarizeResponse]:
    """Send everything; everything that came back."""
    return [response async for response in stub.Diarize(iter(messages))]


async def refusal(
    stub: rpc.DiarizerServiceStub, messages: Iterable[pb.DiarizeRequest]
) -> tuple[grpc.StatusCode, str]:
    """Send messages, for the last of which the server ends the stream; how it ended it.

    Nothing may follow that message: grpc.aio calls a write that the end overtakes INTERNAL, and
    forgets the status that the server sent.
    """
    call = stub.Diarize()
    for message in messages:
        await call.write(message)
    with suppress(grpc.aio.AioRpcError):
        # The status comes after the messages.
        await read_rest(call)
    return await call.code(), await call.details()


async def read(call: Call) -> pb.DiarizeResponse:
    """The next message of a stream that has one."""
    response = await call.read()
    assert isinstance(response, pb.DiarizeResponse), "the stream ended"
    return response


async def read_rest(call: Call) -> list[pb.DiarizeResponse]:
    """What comes until the stream ends."""
    responses = []
    while isinstance(response := await call.read(), pb.DiarizeResponse):
        responses.append(response)
    return responses


def found(responses: Iterable[pb.DiarizeResponse]) -> list[Span]:
    """Who spoke when, for good, by the responses."""
    return settled(turns_of(response.turns) for response in responses if response.HasField("turns"))


def turns_of(message: pb.Turns) -> Turns:
    return Turns(
        tuple(message.turns),  # type: ignore[arg-type]  # of the same fields
        message.first_sample,
        message.through_sample,
        message.settled_sample,
    )


def step_of(engine: Sortformer, memory: SortformerMemory, heard: FloatArray, end: int) -> Step:
    first = max(memory.origin, end - engine.context_samples)
    return Step(memory, heard[first:end], end, LOOK_AHEAD, Wishes(20))


def advanced(
    engine: Sortformer, heard: FloatArray, num_steps: int
) -> tuple[SortformerMemory, list[Finding]]:
    """A stream after so many steps, and what was found in each."""
    memory, found = engine.start(()), []
    for number in range(1, num_steps + 1):
        [finding] = engine.advance([step_of(engine, memory, heard, number * engine.step_samples)])
        found.append(finding)
        assert isinstance(finding.memory, SortformerMemory)
        memory = finding.memory
    return memory, found
