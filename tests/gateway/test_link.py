import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from services.common import watched
from services.common.channel import serves
from services.common.server import serve
from services.common.tls import Identity
from services.gateway.link import Link
from tests.certificates import Authority, check_of
from tests.common.test_server import news, watching
from tests.settings.serving import until


async def test_a_renewed_certificate_is_for_what_begins_then_and_open_streams_go_on(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_LOOK_EVERY_S", 0.01)
    ca = Authority(tmp_path)
    mine, stage = ca.issue("gateway"), ca.issue("stage")
    identity = Identity(str(mine.cert), str(mine.key), str(ca.file))
    target, stopping = f"localhost:{unused_tcp_port}", asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(identity.watch())
        tasks.create_task(
            serve(
                lambda _: None,
                service_names=[],
                address=target,
                drain_s=5,
                stopping=stopping,
                identity=Identity(str(stage.cert), str(stage.key), str(ca.file)),
            )
        )
        link = Link(target, identity)
        stack.push_async_callback(link.close)
        check, stream = check_of(link.channel), watching(link.channel, "")
        await news(stream)
        before = id(link.channel)
        assert id(link.channel) == before

        mine.take(ca.issue("renewed"))
        await until(lambda: id(link.channel) != before)
        assert await serves(link.channel, "", timeout_s=10)
        assert not stream.done()
        # Whoever has a stub of the channel that was replaced may still begin something.
        assert await check(health_pb2.HealthCheckRequest())
        stopping.set()
        watch.cancel()
