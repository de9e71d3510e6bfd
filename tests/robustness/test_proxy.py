"""What stands between clients and a gateway keeps nothing open of its own."""

import asyncio
from contextlib import suppress

from tests.robustness.proxy import Proxy


async def test_a_connection_of_the_last_moment_is_cut_too() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]).listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            assert await reader.read() == b""
        await ended.wait()
    writer.close()
    server.close()
    await server.wait_closed()
