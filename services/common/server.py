"""The life of a service process: serve, tell the truth about its health, drain."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common import telemetry
from services.common.channel import MAX_MESSAGE_BYTES
from services.common.health import HealthServicer
from services.common.tls import Identity, stays_on_machine

log = structlog.get_logger(__name__)

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two processes on one port would share its connections by chance.
    ("grpc.so_reuseport", 0),
    # A peer that vanished without a word frees its slot within 30 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Clients of ours ping every 10 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


async def healthy() -> bool:
    """The probe of a service whose process answering is proof enough."""
    return True


async def serve(
    add_servicer: Callable[[grpc.aio.Server], None],
    *,
    service_names: Sequence[str],
    address: str,
    drain_s: float,
    stopping: asyncio.Event,
    identity: Identity | None = None,
    probe: Callable[[], Awaitable[bool]] = healthy,
    probe_interval_s: float = 5.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> None:
    """Serve until SIGTERM or SIGINT, then let the open streams finish.

    Args:
        add_servicer: Adds the servicer to the server; its models are already loaded.
        service_names: Full proto names, such as ``voxmesh.asr.v1.AsrService``. Each one, and
            ``""`` for the whole process, is reported by ``grpc.health.v1``.
        address: Where to listen, such as ``[::]:50051`` or ``unix:/run/asr.sock``.
        drain_s: How long open streams may take to finish, in seconds.
        stopping: Set when the process is asked to stop; streams see it and say ``go_away``. May
            also be set by the caller.
        identity: For TLS, unless the address is a Unix socket; None: plaintext.
        probe: Whether the service can do its work right now. What it says is what health says.
        probe_interval_s: Seconds between two probes, and how long one may take.
        max_message_bytes: The longest message that is received.

    Raises:
        RuntimeError: The address cannot be listened on.

    """
    options = [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    server = grpc.aio.server(options=options)
    add_servicer(server)
    checks = HealthServicer(service_names)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    if identity is None or stays_on_machine(address):
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, identity.server_credentials())

    async def examine() -> bool:
        try:
            return await asyncio.wait_for(probe(), probe_interval_s)
        except TimeoutError:
            return False

    async def watch() -> None:
        serving = await examine()
        await checks.report(serving)
        log.info("serving", address=address, healthy=serving)
        while True:
            await asyncio.sleep(probe_interval_s)
            if (now := await examine()) is not serving:
                serving = now
                await checks.report(serving)
                log.warning("health changed", healthy=serving)

    await server.start()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        upkeep = [tasks.create_task(watch(), name="server.watch")]
        if identity is not None:
            upkeep.append(tasks.create_task(identity.watch(), name="server.identity"))
        await stopping.wait()
        for task in upkeep:
            task.cancel()

    await checks.stop()
    log.info("draining", drain_s=drain_s)
    await server.stop(drain_s)


def run(main: Awaitable[None]) -> None:
    """Run a service's main coroutine on uvloop."""
    uvloop.run(_await(main))


async def _await(main: Awaitable[None]) -> None:
    telemetry.count_tasks()
    await main
