"""A gateway for the clients of benches, with scripted stages behind it, or any others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from bench.mesh import Served
from bench.tape import ASR, VAD, target
from services.gateway.config import Settings
from services.gateway.gateway import Gateway
from services.gateway.servicer import add_services
from tests.gateway.fakes import FakeAsr, FakeVad, Replica, running, served, spans_of, words_at
from voxmesh.asr.v1 import asr_pb2_grpc
from voxmesh.vad.v1 import vad_pb2_grpc


@asynccontextmanager
async def gateway(*seconds: float, **settings: Any) -> AsyncIterator[Served]:
    """Serve every protocol; words are heard at these times."""
    said = words_at(*seconds)
    async with (
        running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh,
        _doors(mesh.gateway) as doors,
    ):
        yield doors


@asynccontextmanager
async def gateway_before(folder: Path) -> AsyncIterator[Served]:
    """Serve every protocol, with the stages whose sockets are in a folder."""
    targets = {"vad_target": target(folder, VAD), "asr_targets": (target(folder, ASR),)}
    gateway = Gateway(Settings.model_validate(targets))
    await gateway.pools.describe()
    upkeep = asyncio.create_task(gateway.run())
    try:
        async with _doors(gateway) as doors:
            yield doors
    finally:
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        await gateway.close()


@asynccontextmanager
async def scripted(folder: Path, *seconds: float) -> AsyncIterator[None]:
    """Serve stages whose sockets are in a folder; words are heard at these times."""
    said = words_at(*seconds)
    vad, asr = FakeVad(spans_of(said)), FakeAsr(said)
    replicas = [
        Replica(
            folder / "vad.sock",
            lambda server: vad_pb2_grpc.add_VadServiceServicer_to_server(vad, server),
            VAD.service,
        ),
        Replica(
            folder / "asr.sock",
            lambda server: asr_pb2_grpc.add_AsrServiceServicer_to_server(asr, server),
            ASR.service,
        ),
    ]
    for replica in replicas:
        await replica.start()
    try:
        yield
    finally:
        for replica in replicas:
            await replica.kill()


@asynccontextmanager
async def _doors(gateway: Gateway) -> AsyncIterator[Served]:
    server = grpc.aio.server()
    add_services(gateway, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with served(gateway) as port:
        yield Served(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", psutil.Process(), {})
    await server.stop(grace=None)
