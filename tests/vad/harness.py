"""A detector without weights, a replica to call, and the messages it is called with."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc.aio
import numpy as np

from services.common.audio import BYTES_PER_SAMPLE, FloatArray
from services.common.channel import open_channel
from services.common.errors import DeviceError
from services.common.timeline import samples, samples_of_ms
from services.vad.batcher import Batcher
from services.vad.detector import Detector
from services.vad.endpointer import Endpointing
from services.vad.servicer import VadServicer
from voxmesh.common.v1 import audio_pb2, stage_pb2
from voxmesh.vad.v1 import vad_pb2 as pb
from voxmesh.vad.v1 import vad_pb2_grpc as rpc

DEFAULTS = Endpointing(0.5, 0.35, samples_of_ms(100), samples_of_ms(400), samples(60))
DRAIN_S = 7.0

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.DetectRequest, pb.DetectResponse]"

FINISH = pb.DetectRequest(finish=stage_pb2.Finish())


class EnergyDetector:
    """Loudness, smoothed over the last windows so that streams do have a memory.

    A window that starts with the lowest sample there is breaks every run it is part of.
    """

    name = "energy"
    memory_size = 1

    def __init__(self) -> None:
        self.batches: list[int] = []

    def classify(self, windows: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        self.batches.append(len(windows))
        if (windows[:, 0] == -1).any():
            raise DeviceError("a bad window")
        loudness = np.minimum(1, np.abs(windows).mean(axis=1) * 4)
        remembered = (memory[:, 0] / 4 + loudness * 3 / 4).astype(np.float32)
        return remembered, remembered[:, np.newaxis]


@dataclass(frozen=True, slots=True)
class Replica:
    """A server in this process, and a way to call it."""

    stub: rpc.VadServiceStub
    stopping: asyncio.Event


@asynccontextmanager
async def running(batcher: Batcher) -> AsyncIterator[Batcher]:
    work = asyncio.create_task(batcher.run(), name="batcher")
    try:
        yield batcher
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


@asynccontextmanager
async def serving(
    detector: Detector, folder: Path, *, max_streams: int = 100
) -> AsyncIterator[Replica]:
    stopping = asyncio.Event()
    async with running(Batcher(detector, threads=1)) as batcher:
        servicer = VadServicer(
            batcher,
            max_streams=max_streams,
            defaults=DEFAULTS,
            stopping=stopping,
            drain_s=DRAIN_S,
        )
        server = grpc.aio.server()
        rpc.add_VadServiceServicer_to_server(servicer, server)
        address = f"unix:{folder}/vad.sock"
        server.add_insecure_port(address)
        await server.start()
        async with open_channel(address) as channel:
            yield Replica(rpc.VadServiceStub(channel), stopping)
        await server.stop(grace=0)


def tone(*parts: tuple[float, int]) -> bytes:
    """Pieces of (amplitude, num_samples) as s16le."""
    pieces = [np.full(num, round(level * 32767), "<i2") for level, num in parts]
    return np.concatenate(pieces).tobytes()


def opening(
    first_sample: int = 0,
    *,
    config: pb.DetectConfig | None = None,
    checkpoint: stage_pb2.Checkpoint | None = None,
) -> pb.DetectRequest:
    return pb.DetectRequest(
        open=pb.Open(
            session_id="s1", first_sample=first_sample, config=config, checkpoint=checkpoint
        )
    )


def audio(first_sample: int, pcm: bytes) -> pb.DetectRequest:
    return pb.DetectRequest(audio=audio_pb2.AudioFrame(first_sample=first_sample, pcm=pcm))


def gap(first_sample: int, num_samples: int) -> pb.DetectRequest:
    return pb.DetectRequest(gap=audio_pb2.Gap(first_sample=first_sample, num_samples=num_samples))


def flush(flush_id: int) -> pb.DetectRequest:
    return pb.DetectRequest(flush=stage_pb2.Flush(flush_id=flush_id))


def cut(pcm: bytes, num_samples: int, first_sample: int = 0) -> Iterator[pb.DetectRequest]:
    """Audio in messages of so many samples."""
    size = num_samples * BYTES_PER_SAMPLE
    for start in range(0, len(pcm), size):
        yield audio(first_sample + start // BYTES_PER_SAMPLE, pcm[start : start + size])


async def converse(
    stub: rpc.VadServiceStub, messages: Iterable[pb.DetectRequest]
) -> list[pb.DetectResponse]:
    """Send everything; everything that came back."""
    return [response async for response in stub.Detect(iter(messages))]


async def refusal(
    stub: rpc.VadServiceStub, messages: Iterable[pb.DetectRequest]
) -> tuple[grpc.StatusCode, str]:
    """Send messages, for the last of which the server ends the stream; how it ended it.

    Nothing may follow that message: grpc.aio calls a write that the end overtakes INTERNAL, and
    forgets the status that the server sent.
    """
    call = stub.Detect()
    for message in messages:
        await call.write(message)
    with suppress(grpc.aio.AioRpcError):
        # The status comes after the messages.
        await read_rest(call)
    return await call.code(), await call.details()


async def read(call: Call) -> pb.DetectResponse:
    """The next message of a stream that has one."""
    response = await call.read()
    assert isinstance(response, pb.DetectResponse), "the stream ended"
    return response


async def read_rest(call: Call) -> list[pb.DetectResponse]:
    """What comes until the stream ends."""
    responses = []
    while isinstance(response := await call.read(), pb.DetectResponse):
        responses.append(response)
    return responses


def found(responses: Sequence[pb.DetectResponse]) -> list[tuple[str, int]]:
    """The starts and ends among responses."""
    events = []
    for response in responses:
        if response.HasField("started"):
            events.append(("started", response.started.first_sample))
        elif response.HasField("ended"):
            events.append(("ended", response.ended.end_sample))
    return events
