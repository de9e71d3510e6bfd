"""What the stages of one session answered, so that they can answer it again: to many, at no cost.

A recorder stands between a gateway and real stages. Each answer is kept with the position that the
stage had received when it came: so long it took, and so long it will take again.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from services.common.channel import open_channel
from voxmesh.asr.v1 import asr_pb2
from voxmesh.vad.v1 import vad_pb2

DESCRIBE = "/voxmesh.asr.v1.AsrService/Describe"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of stage: its method, and the messages of its streams."""

    name: str
    service: str
    method: str
    request: Any
    response: Any


VAD = Kind(
    "vad",
    "voxmesh.vad.v1.VadService",
    "/voxmesh.vad.v1.VadService/Detect",
    vad_pb2.DetectRequest,
    vad_pb2.DetectResponse,
)
ASR = Kind(
    "asr",
    "voxmesh.asr.v1.AsrService",
    "/voxmesh.asr.v1.AsrService/Transcribe",
    asr_pb2.TranscribeRequest,
    asr_pb2.TranscribeResponse,
)
KINDS = (VAD, ASR)

Forward: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
Stream: TypeAlias = AsyncIterator[bytes]
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class Answer:
    """One message of a stage."""

    sample: int
    """Position after the audio that it had received."""
    event: str
    """Which of the contract's events it is."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Tape:
    """What the stages of one session answered."""

    description: bytes
    """Of the recogniser."""
    streams: Mapping[str, Sequence[Answer]]
    """By the name of the stage, in order."""

    def row(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "description": self.description.hex(),
            "streams": {
                name: [[answer.sample, answer.event, answer.data.hex()] for answer in answers]
                for name, answers in self.streams.items()
            },
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Tape":
        """What ``row`` wrote."""
        streams = {
            name: [Answer(sample, event, bytes.fromhex(data)) for sample, event, data in answers]
            for name, answers in row["streams"].items()
        }
        return cls(bytes.fromhex(row["description"]), streams)

    def text(self) -> str:
        """The words that the recogniser committed."""
        commits = [
            asr_pb2.TranscribeResponse.FromString(answer.data).commit
            for answer in self.streams[ASR.name]
            if answer.event == "commit"
        ]
        return "".join(word.text for commit in commits for word in commit.words)


def position_after(request: Any, position: int) -> int:
    """Where a stage stands that stood at a position, after a message of its stream."""
    match request.WhichOneof("payload"):
        case "audio":
            return int(request.audio.first_sample) + len(request.audio.pcm) // 2
        case "gap":
            return int(request.gap.first_sample + request.gap.num_samples)
    return position


class _Recorder:
    """Forwards every call to a stage, and writes down what it answers to its streams."""

    def __init__(self, kind: Kind, channel: grpc.aio.Channel) -> None:
        self._kind = kind
        self._channel = channel
        self._position = 0
        self.answers: list[Answer] = []
        self.description = b""

    async def forward(self, method: str, requests: Stream, context: Context) -> None:
        forward: Forward = self._channel.stream_stream(method)
        async for data in forward(self._heard(method, requests)):
            if method == self._kind.method:
                event = self._kind.response.FromString(data).WhichOneof("event")
                self.answers.append(Answer(self._position, event, data))
            elif method == DESCRIBE:
                self.description = data
            await context.write(data)

    async def _heard(self, method: str, requests: Stream) -> Stream:
        async for data in requests:
            if method == self._kind.method:
                request = self._kind.request.FromString(data)
                self._position = position_after(request, self._position)
            yield data


class AnyMethod(grpc.GenericRpcHandler):
    """Serves every method of a server with one coroutine, which is given bytes."""

    def __init__(self, serve: Callable[[str, Stream, Context], Any]) -> None:
        self._serve = serve

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call. On the wire one request is a stream of one."""
        method = handler_call_details.method
        return grpc.stream_stream_rpc_method_handler(partial(self._serve, method))


def target(folder: Path, kind: Kind) -> str:
    """Where a stage listens whose socket is in a folder."""
    return f"unix:{folder / kind.name}.sock"


@asynccontextmanager
async def recording(folder: Path, stages: Path) -> AsyncIterator[Callable[[], Tape]]:
    """Stand between a gateway and stages, and write down one session.

    Yields what returns the tape.

    Args:
        folder: Where the gateway finds the sockets of stages.
        stages: Where those of the real ones are.

    """
    recorders: dict[str, _Recorder] = {}
    servers = []
    channels = []
    for kind in KINDS:
        channels.append(open_channel(target(stages, kind)))
        recorders[kind.name] = _Recorder(kind, channels[-1])
        servers.append(grpc.aio.server())
        servers[-1].add_generic_rpc_handlers((AnyMethod(recorders[kind.name].forward),))
        servers[-1].add_insecure_port(target(folder, kind))
        await servers[-1].start()
    try:
        yield lambda: Tape(
            recorders[ASR.name].description,
            {name: recorder.answers for name, recorder in recorders.items()},
        )
    finally:
        for server in servers:
            await server.stop(grace=None)
        for channel in channels:
            await channel.close()


def save(tape: Tape, path: Path) -> None:
    """Write a tape for ``bench.replay``."""
    path.write_text(json.dumps(tape.row()))


def load(path: Path) -> Tape:
    """Read what ``save`` wrote."""
    return Tape.of(json.loads(path.read_text()))
