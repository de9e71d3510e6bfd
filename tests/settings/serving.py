"""Services that run in the test's own process until they are asked to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from services.common.channel import open_channel, serves


@asynccontextmanager
async def serving(
    main: Coroutine[Any, Any, None],
    target: str,
    service_name: str,
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """Run a service's main coroutine; when the block ends, stop it as an orchestrator does.

    Args:
        main: The coroutine.
        target: Where it serves.
        service_name: What it is to serve.
        credentials: For a service that speaks TLS.

    Raises:
        Exception: What kept it from serving.

    """
    work = asyncio.create_task(main, name="service")
    try:
        async with open_channel(target, credentials) as channel:
            while not await serves(channel, service_name, timeout_s=0.2):
                if work.done():
                    await work
            yield channel
    finally:
        if not work.done():
            # Its handlers are in place: it has said that it serves, or was cancelled before.
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(work, 30)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)


async def begin_to_stop(channel: grpc.aio.Channel) -> None:
    """Send SIGTERM and return when it shows."""
    signal.raise_signal(signal.SIGTERM)
    while True:
        if not await serves(channel, "", timeout_s=0.2):
            return
        await asyncio.sleep(0.01)


async def until(reached: Callable[[], bool], *, within_s: float = 10) -> None:
    """Wait for what no event tells of.

    Raises:
        TimeoutError: It did not come to be.

    """
    async with asyncio.timeout(within_s):
        while True:
            if reached():
                return
            await asyncio.sleep(0.01)
