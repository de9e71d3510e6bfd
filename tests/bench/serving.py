"""A gateway for the clients of benches, with scripted stages behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import psutil

from bench.mesh import Served
from services.gateway.servicer import add_services
from tests.gateway.fakes import FakeAsr, FakeVad, running, served, spans_of, words_at


@asynccontextmanager
async def gateway(*seconds: float, **settings: Any) -> AsyncIterator[Served]:
    """Serve every protocol; words are heard at these times."""
    said = words_at(*seconds)
    async with running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh:
        server = grpc.aio.server()
        add_services(mesh.gateway, server)
        grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with served(mesh.gateway) as port:
            yield Served(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", psutil.Process(), {})
        await server.stop(grace=None)
