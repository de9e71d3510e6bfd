"""A replica to call, and the messages it is called with."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc.aio

from services.asr.load import Limits
from services.asr.recognizer import Recognizer
from services.asr.scheduler import Scheduler
from services.asr.servicer import AsrServicer, Paces
from services.asr.transcriber import Cadence
from services.common.audio import FloatArray, float_to_pcm
from services.common.channel import open_channel
from services.common.timeline import seconds
from services.common.words import Word, words_from_proto
from tests.asr.harness import FILE, LIVE, STEP, Piece
from voxmesh.asr.v1 import asr_pb2 as pb
from voxmesh.asr.v1 import asr_pb2_grpc as rpc
from voxmesh.common.v1 import audio_pb2, stage_pb2

DRAIN_S = 7.0
MODEL = "scripted"

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.TranscribeRequest, pb.TranscribeResponse]"

FINISH = pb.TranscribeRequest(finish=stage_pb2.Finish())


@dataclass(frozen=True, slots=True)
class Replica:
    """A server in this process, and a way to call it."""

    stub: rpc.AsrServiceStub
    stopping: asyncio.Event
    scheduler: Scheduler


@asynccontextmanager
async def serving(
    model: Recognizer,
    folder: Path,
    *,
    max_streams: int = 100,
    workers: int = 1,
    steps_s: tuple[float, float] = (seconds(STEP), seconds(STEP)),
    name: str = MODEL,
    live: Cadence = LIVE,
) -> AsyncIterator[Replica]:
    stopping = asyncio.Event()
    min_step_s, max_step_s = steps_s
    limits = Limits(
        workers=workers,
        max_batch=16,
        max_streams=max_streams,
        min_step_s=min_step_s,
        max_step_s=max_step_s,
    )
    scheduler = Scheduler(model, limits)
    work = asyncio.create_task(scheduler.run(), name="scheduler")
    servicer = AsrServicer(
        model,
        scheduler,
        model=name,
        paces=Paces(live, FILE),
        max_streams=max_streams,
        stopping=stopping,
        drain_s=DRAIN_S,
    )
    server = grpc.aio.server()
    rpc.add_AsrServiceServicer_to_server(servicer, server)
    address = f"unix:{folder}/asr.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with open_channel(address) as channel:
            yield Replica(rpc.AsrServiceStub(channel), stopping, scheduler)
    finally:
        await server.stop(grace=0)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


def opening(
    first_sample: int = 0,
    *,
    config: pb.TranscribeConfig | None = None,
    checkpoint: stage_pb2.Checkpoint | None = None,
) -> pb.TranscribeRequest:
    return pb.TranscribeRequest(
        open=pb.Open(
            session_id="s1", first_sample=first_sample, config=config, checkpoint=checkpoint
        )
    )


def audio(first_sample: int, pcm: bytes) -> pb.TranscribeRequest:
    return pb.TranscribeRequest(audio=audio_pb2.AudioFrame(first_sample=first_sample, pcm=pcm))


def gap(first_sample: int, num_samples: int) -> pb.TranscribeRequest:
    return pb.TranscribeRequest(
        gap=audio_pb2.Gap(first_sample=first_sample, num_samples=num_samples)
    )


def flush(flush_id: int) -> pb.TranscribeRequest:
    return pb.TranscribeRequest(flush=stage_pb2.Flush(flush_id=flush_id))


def heard(first_sample: int, samples: FloatArray) -> pb.TranscribeRequest:
    """Audio whose levels survive the way through 16 bits."""
    return audio(first_sample, (samples * 32768).round().astype("<i2").tobytes())


def messages(pieces: Iterable[Piece]) -> Iterator[pb.TranscribeRequest]:
    for piece in pieces:
        if piece.heard is None:
            yield gap(piece.first_sample, piece.num_samples)
        else:
            yield heard(piece.first_sample, piece.heard)


def recording(
    samples: FloatArray, size: int = 1600, first_sample: int = 0
) -> Iterator[pb.TranscribeRequest]:
    """A recording in messages of so many samples, from a position on."""
    for first in range(first_sample, len(samples), size):
        yield audio(first, float_to_pcm(samples[first : first + size]))


async def converse(
    stub: rpc.AsrServiceStub, requests: Iterable[pb.TranscribeRequest]
) -> list[pb.TranscribeResponse]:
    """Send everything; everything that came back."""
    return [response async for response in stub.Transcribe(iter(requests))]


async def refusal(
    stub: rpc.AsrServiceStub, requests: Iterable[pb.TranscribeRequest]
) -> tuple[grpc.StatusCode, str]:
    """Send messages, for the last of which the server ends the stream; how it ended it."""
    call = stub.Transcribe()
    for request in requests:
        await call.write(request)
    with suppress(grpc.aio.AioRpcError):
        await read_rest(call)
    return await call.code(), await call.details()


async def read(call: Call) -> pb.TranscribeResponse:
    """The next message of a stream that has one."""
    response = await call.read()
    assert isinstance(response, pb.TranscribeResponse), "the stream ended"
    return response


async def read_until(call: Call, event: str) -> list[pb.TranscribeResponse]:
    """What comes up to and with the next of a kind."""
    responses = [await read(call)]
    while responses[-1].WhichOneof("event") != event:
        responses.append(await read(call))
    return responses


async def read_rest(call: Call) -> list[pb.TranscribeResponse]:
    """What comes until the stream ends."""
    responses = []
    while isinstance(response := await call.read(), pb.TranscribeResponse):
        responses.append(response)
    return responses


def commits(responses: Iterable[pb.TranscribeResponse]) -> list[pb.Commit]:
    return [response.commit for response in responses if response.HasField("commit")]


def words(responses: Sequence[pb.TranscribeResponse]) -> list[Word]:
    """The committed words."""
    return [word for commit in commits(responses) for word in words_from_proto(commit.words)]


def kinds(responses: Iterable[pb.TranscribeResponse]) -> list[str]:
    return [str(response.WhichOneof("event")) for response in responses]
