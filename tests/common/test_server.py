import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import REGISTRY

from services.common.channel import open_channel, serves
from services.common.rpc import Metadata, Send, bidi
from services.common.server import healthy, run, serve
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

Watch: TypeAlias = "grpc.aio.UnaryStreamCall[Any, health_pb2.HealthCheckResponse]"

NAME = "voxmesh.gateway.v1.GatewayService"


class Echo(rpc.GatewayServiceServicer):
    @bidi
    async def Converse(  # noqa: N802 -- gRPC's name
        self,
        requests: AsyncIterator[pb.ConverseRequest],
        send: Send[pb.ConverseResponse],
        _: Metadata,
    ) -> None:
        async for request in requests:
            tail = request.audio.decode()
            await send(pb.ConverseResponse(captions=pb.Captions(tail=tail)))
            if tail == "last":
                return


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    probe: Callable[[], Awaitable[bool]] = healthy,
    drain_s: float = 5.0,
    probe_interval_s: float = 0.05,
) -> AsyncIterator[tuple[grpc.aio.Channel, asyncio.Event, "asyncio.Task[None]"]]:
    address = f"unix:{folder}/sock"
    stopping = asyncio.Event()
    task = asyncio.create_task(
        serve(
            lambda server: rpc.add_GatewayServiceServicer_to_server(Echo(), server),
            service_names=[NAME],
            address=address,
            drain_s=drain_s,
            stopping=stopping,
            probe=probe,
            probe_interval_s=probe_interval_s,
        )
    )
    async with open_channel(address) as channel:
        yield channel, stopping, task
        stopping.set()
    await task


async def status(channel: grpc.aio.Channel, service: str = NAME) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service)
    return (await check(request, wait_for_ready=True, timeout=5)).status


def watching(channel: grpc.aio.Channel, service: str = NAME) -> Watch:
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return watch(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True)


async def news(watch: Watch) -> int:
    answer = await watch.read()
    assert isinstance(answer, health_pb2.HealthCheckResponse)
    return answer.status


async def becomes(channel: grpc.aio.Channel, expected: int) -> bool:
    for _ in range(200):
        if await status(channel) == expected == await status(channel, ""):
            return True
        await asyncio.sleep(0.01)  # until the next probe
    return False


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_what_the_probe_says(tmp_path: Path) -> None:
    answers = {"now": True}

    async def probe() -> bool:
        return answers["now"]

    async with serving(tmp_path, probe=probe) as (channel, _, _task):
        assert await becomes(channel, SERVING)
        assert await serves(channel, NAME, timeout_s=1)
        answers["now"] = False
        assert await becomes(channel, NOT_SERVING)
        assert not await serves(channel, NAME, timeout_s=1)
        answers["now"] = True
        assert await becomes(channel, SERVING)


async def test_nothing_is_healthy_before_the_first_probe_has_answered(tmp_path: Path) -> None:
    ready = asyncio.Event()

    async def probe() -> bool:
        return await ready.wait()

    async with serving(tmp_path, probe=probe, probe_interval_s=5) as (channel, _, _task):
        assert await status(channel) == NOT_SERVING
        assert await status(channel, "") == NOT_SERVING
        ready.set()
        assert await becomes(channel, SERVING)


async def test_a_probe_that_hangs_is_a_bad_sign_and_holds_up_nothing(tmp_path: Path) -> None:
    hangs = {"now": False}

    async def probe() -> bool:
        if hangs["now"]:
            await asyncio.Event().wait()
        return True

    async with serving(tmp_path, probe=probe, probe_interval_s=0.2) as (channel, stopping, task):
        assert await becomes(channel, SERVING)
        hangs["now"] = True
        assert await becomes(channel, NOT_SERVING)
        stopping.set()
        await asyncio.wait_for(task, 1)


async def test_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as (channel, _, _task):
        assert await becomes(channel, SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(channel, "voxmesh.nothing.v1.NothingService")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_draining_lets_an_open_stream_finish_and_says_not_serving(tmp_path: Path) -> None:
    async with serving(tmp_path) as (channel, stopping, task):
        assert await becomes(channel, SERVING)
        watch = watching(channel)
        assert await news(watch) == SERVING
        call = rpc.GatewayServiceStub(channel).Converse()
        await call.write(pb.ConverseRequest(audio=b"first"))
        await call.read()
        stopping.set()
        assert await news(watch) == NOT_SERVING
        await call.write(pb.ConverseRequest(audio=b"last"))
        response = await call.read()
        assert isinstance(response, pb.ConverseResponse)
        assert response.captions.tail == "last"
        assert await call.code() is grpc.StatusCode.OK
        await asyncio.wait_for(task, 2)


async def test_draining_ends_after_the_time_it_has(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_s=0.3) as (channel, stopping, task):
        call = rpc.GatewayServiceStub(channel).Converse(wait_for_ready=True)
        await call.write(pb.ConverseRequest(audio=b"first"))
        await call.read()
        began_s = time.monotonic()
        stopping.set()
        await asyncio.wait_for(task, 3)
        assert 0.2 < time.monotonic() - began_s < 2
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_someone_who_only_watches_health_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_s=30) as (channel, stopping, task):
        assert await becomes(channel, SERVING)
        watch = watching(channel)
        assert await news(watch) == SERVING
        stopping.set()
        await asyncio.wait_for(task, 3)
        assert await news(watch) == NOT_SERVING
        assert await watch.code() is grpc.StatusCode.OK


async def test_someone_who_watches_an_unknown_service_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as (channel, _, _task):
        watch = watching(channel, "nothing")
        assert await news(watch) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_reflection_lists_the_services(tmp_path: Path) -> None:
    async with serving(tmp_path) as (channel, _, _task):
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        ask = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        [answer] = [answer async for answer in ask(iter([request]), wait_for_ready=True)]
    names = {service.name for service in answer.list_services_response.service}
    assert names == {
        NAME,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_an_address_that_cannot_be_listened_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no/such/folder"):
        await serve(
            lambda _: None,
            service_names=[NAME],
            address=f"unix:{tmp_path}/no/such/folder/sock",
            drain_s=0,
            stopping=asyncio.Event(),
        )


def test_the_tasks_of_a_service_can_be_read_from_any_thread() -> None:
    found: list[float | None] = []

    async def read() -> None:
        found.append(await asyncio.to_thread(REGISTRY.get_sample_value, "voxmesh_tasks"))

    async def main() -> None:
        await read()
        waiting = asyncio.create_task(asyncio.Event().wait())
        await read()
        waiting.cancel()
        await asyncio.wait((waiting,))
        await read()

    run(main())
    assert found == [1, 2, 1]
