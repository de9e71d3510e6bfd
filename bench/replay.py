"""Stages that answer every session as they once answered one: ``python -m bench.replay TAPE``.

Their sockets are in the tape's folder. What a stage answers depends on the position that it has
received and on nothing else, and costs it next to nothing: a gateway can be given more sessions
than any recogniser on the machine could serve.
"""

import asyncio
import signal
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc

from bench.tape import (
    DESCRIBE,
    KINDS,
    Answer,
    AnyMethod,
    Context,
    Kind,
    Stream,
    Tape,
    load,
    position_after,
    target,
)
from services.common.health import HealthServicer
from services.common.timeline import samples
from voxmesh.common.v1 import stage_pb2

_NEAR_SAMPLES = samples(0.5)
"""A mark lies where the gateway learnt of a pause, which differs by a message or two."""
_ABOUT_THE_STREAM = {"opened", "finished", "go_away", "queued"}


class Script:
    """How far one stream has been answered."""

    def __init__(self, kind: Kind, answers: Sequence[Answer]) -> None:
        self._kind = kind
        self._answers = [answer for answer in answers if answer.event not in _ABOUT_THE_STREAM]
        self._samples = [answer.sample for answer in self._answers]
        self._marks = [
            (kind.response.FromString(answer.data).flushed.flush_id, index)
            for index, answer in enumerate(self._answers)
            if answer.event == "flushed"
        ]
        self._next = 0

    def through(self, position: int) -> Iterator[bytes]:
        """What is said when so much has been received; marks are answered when they come."""
        return self._until(bisect_right(self._samples, position))

    def flush(self, mark: int) -> Iterator[bytes]:
        """What is said before a mark is answered, and the answer."""
        near = [(abs(was - mark), index) for was, index in self._marks]
        distance, index = min(near, default=(_NEAR_SAMPLES, 0))
        if distance < _NEAR_SAMPLES:
            yield from self._until(index)
        flushed = stage_pb2.Flushed(flush_id=mark)
        yield self._kind.response(flushed=flushed).SerializeToString()

    def rest(self) -> Iterator[bytes]:
        """What is said when everything has been received."""
        yield from self._until(len(self._answers))
        yield self._kind.response(finished=stage_pb2.Finished()).SerializeToString()

    def _until(self, end: int) -> Iterator[bytes]:
        while self._next < end:
            answer = self._answers[self._next]
            self._next += 1
            if answer.event != "flushed":
                yield answer.data


class Replay:
    """One stage."""

    def __init__(self, kind: Kind, tape: Tape) -> None:
        self._kind = kind
        self._description = tape.description
        self._answers = tape.streams[kind.name]
        [self._opened] = [answer.data for answer in self._answers if answer.event == "opened"]

    async def serve(self, method: str, requests: Stream, context: Context) -> None:
        """Answer one call."""
        if method == DESCRIBE:
            await context.write(self._description)
            return
        script = Script(self._kind, self._answers)
        position = 0
        async for data in requests:
            request = self._kind.request.FromString(data)
            position = position_after(request, position)
            for answer in self._to(script, request, position):
                await context.write(answer)

    def _to(self, script: Script, request: Any, position: int) -> Iterator[bytes]:
        match request.WhichOneof("payload"):
            case "open":
                yield self._opened
            case "flush":
                yield from script.flush(request.flush.flush_id)
            case "finish":
                yield from script.rest()
            case _:
                yield from script.through(position)


@asynccontextmanager
async def replaying(tape: Tape, folder: Path) -> AsyncIterator[None]:
    """Serve every stage, with its socket in the folder."""
    servers = []
    for kind in KINDS:
        server = grpc.aio.server()
        checks = HealthServicer([kind.service])
        await checks.report(serving=True)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        server.add_generic_rpc_handlers((AnyMethod(Replay(kind, tape).serve),))
        server.add_insecure_port(target(folder, kind))
        await server.start()
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            await server.stop(grace=None)


async def main(path: Path) -> None:
    """Serve until asked to stop."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with replaying(load(path), path.parent):
        await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
