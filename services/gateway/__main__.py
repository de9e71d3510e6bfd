"""``python -m services.gateway``: HTTP, WebSocket and gRPC in one process."""

import asyncio
from functools import partial

import structlog

from services.common.process import start
from services.common.server import serve
from services.common.tls import Identity
from services.common.watched import FileError
from services.gateway.app import create_app
from services.gateway.config import Settings
from services.gateway.gateway import Gateway
from services.gateway.http_server import http_server, listen
from services.gateway.servicer import SERVICE_NAMES, add_services

log = structlog.get_logger(__name__)


async def main(chosen: Settings) -> None:
    """Listen, look for the pools, serve until asked to stop."""
    stopping = asyncio.Event()
    identity = Identity(chosen.tls_cert_file, chosen.tls_key_file) if chosen.tls_cert_file else None
    gateway = Gateway(chosen)
    http = http_server(
        create_app(gateway),
        None if identity is None else identity.server_context(),
    )
    listener = listen(chosen.host, chosen.port)
    log.info("listening", host=chosen.host, port=listener.getsockname()[1])

    async def drain() -> None:
        await stopping.wait()
        await gateway.drain(chosen.drain_s)
        http.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        upkeep = tasks.create_task(gateway.run(), name="gateway.upkeep")
        tasks.create_task(http.serve(sockets=[listener]), name="gateway.http")
        tasks.create_task(drain(), name="gateway.drain")
        await serve(
            partial(add_services, gateway),
            service_names=SERVICE_NAMES,
            address=chosen.grpc_address,
            drain_s=chosen.drain_s,
            max_message_bytes=chosen.grpc_max_message_bytes,
            stopping=stopping,
            identity=identity,
            probe=gateway.healthy,
        )
        upkeep.cancel()
    await gateway.close()


if __name__ == "__main__":
    start("gateway", Settings, main, reasons=(OSError, FileError))
