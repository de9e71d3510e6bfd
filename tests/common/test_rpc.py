"""The boundary of a call, over a real loopback channel. The method echoes captions of a gateway."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from services.common.channel import open_channel
from services.common.errors import ClientLeftError, InvalidRequestError, MeshError, OverloadedError
from services.common.rpc import Metadata, Send, bidi
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

Requests: TypeAlias = AsyncIterator[pb.ConverseRequest]
Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseResponse]"
Handler: TypeAlias = Callable[[Requests, Send[pb.ConverseResponse], Metadata], Awaitable[None]]


class Servicer(rpc.GatewayServiceServicer):
    """Does what the test says."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    @bidi
    async def Converse(  # noqa: N802 -- gRPC's name
        self, requests: Requests, send: Send[pb.ConverseResponse], metadata: Metadata
    ) -> None:
        await self._handler(requests, send, metadata)


@asynccontextmanager
async def serving(handler: Handler, folder: Path) -> AsyncIterator[rpc.GatewayServiceStub]:
    server = grpc.aio.server()
    rpc.add_GatewayServiceServicer_to_server(Servicer(handler), server)
    address = f"unix:{folder}/sock"
    server.add_insecure_port(address)
    await server.start()
    async with open_channel(address) as channel:
        yield rpc.GatewayServiceStub(channel)
    await server.stop(grace=0)


def audio(data: bytes) -> pb.ConverseRequest:
    return pb.ConverseRequest(audio=data)


def tail(text: str) -> pb.ConverseResponse:
    return pb.ConverseResponse(captions=pb.Captions(tail=text))


async def ending(stub: rpc.GatewayServiceStub) -> Call:
    """A call that has run to its end."""
    call = stub.Converse()
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return call


async def test_what_is_sent_arrives_in_order_and_the_status_is_ok(tmp_path: Path) -> None:
    async def echo(requests: Requests, send: Send[pb.ConverseResponse], _: Metadata) -> None:
        async for request in requests:
            await send(tail(request.audio.decode()))

    async with serving(echo, tmp_path) as stub:
        call = stub.Converse(iter([audio(b"a"), audio(b"b"), audio(b"c")]))
        assert [response.captions.tail async for response in call] == ["a", "b", "c"]
        assert await call.code() is grpc.StatusCode.OK


async def test_the_handler_sees_the_metadata_of_the_call(tmp_path: Path) -> None:
    async def tell(_: Requests, send: Send[pb.ConverseResponse], metadata: Metadata) -> None:
        await send(tail(metadata["traceparent"]))

    async with serving(tell, tmp_path) as stub:
        call = stub.Converse(metadata=(("traceparent", "00-1"), ("blob-bin", b"\0")))
        response = await call.read()
    assert isinstance(response, pb.ConverseResponse)
    assert response.captions.tail == "00-1"


async def test_several_tasks_may_send_at_once(tmp_path: Path) -> None:
    async def chatter(_: Requests, send: Send[pb.ConverseResponse], __: Metadata) -> None:
        async with asyncio.TaskGroup() as tasks:

            async def say(number: int) -> None:
                await send(tail(str(number) * 50_000))

            for number in range(20):
                tasks.create_task(say(number))

    async with serving(chatter, tmp_path) as stub:
        call = stub.Converse()
        texts = [response.captions.tail[:2] async for response in call]
    assert len(texts) == 20


@pytest.mark.parametrize("error", MeshError.__subclasses__())
async def test_an_error_of_ours_becomes_its_status_with_its_reason(
    error: type[MeshError], tmp_path: Path
) -> None:
    async def fail(_: Requests, __: Send[pb.ConverseResponse], ___: Metadata) -> None:
        async with asyncio.TaskGroup() as tasks:

            async def child() -> None:
                raise error("what went wrong")

            tasks.create_task(child())
            await asyncio.sleep(10)  # the group cancels it

    with capture_logs() as logs:
        async with serving(fail, tmp_path) as stub:
            call = await ending(stub)
            status = await rpc_status.aio.from_call(call)
            assert await call.code() is error.code
    assert status is not None
    assert status.message == "what went wrong"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "voxmesh")
    retry = error_details_pb2.RetryInfo()
    told = any(detail.Unpack(retry) for detail in status.details)
    assert told is (error is OverloadedError)
    assert logs == []


async def test_a_bug_is_told_to_nobody_but_the_log_and_there_once(tmp_path: Path) -> None:
    async def fail(_: Requests, __: Send[pb.ConverseResponse], ___: Metadata) -> None:
        raise ZeroDivisionError("a secret")

    with capture_logs() as logs:
        async with serving(fail, tmp_path) as stub:
            call = await ending(stub)
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert await call.details() == "internal error"
    [line] = logs
    assert (line["event"], line["log_level"]) == ("unexpected error", "error")
    assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("expected", [InvalidRequestError("no"), ClientLeftError()])
async def test_a_bug_beside_an_expected_error_is_logged_all_the_same(
    expected: Exception, tmp_path: Path
) -> None:
    async def fail(_: Requests, __: Send[pb.ConverseResponse], ___: Metadata) -> None:
        raise ExceptionGroup("both", [expected, ZeroDivisionError()])

    with capture_logs() as logs:
        async with serving(fail, tmp_path) as stub:
            call = await ending(stub)
            assert await call.code() is not grpc.StatusCode.INTERNAL
    assert [line["event"] for line in logs] == ["unexpected error"]


async def test_a_slow_client_that_leaves_takes_its_tasks_with_it(tmp_path: Path) -> None:
    """Also a child that waits in ``put`` because the queue is full."""
    live: set[str] = set()

    async def handler(requests: Requests, send: Send[pb.ConverseResponse], _: Metadata) -> None:
        frames: asyncio.Queue[bytes] = asyncio.Queue(1)

        async def receive() -> None:
            live.add("receive")
            try:
                async for request in requests:
                    await frames.put(request.audio)
                await asyncio.Event().wait()  # a child that nothing wakes but its group
            finally:
                live.remove("receive")

        async def decode() -> None:
            live.add("decode")
            try:
                while True:
                    await send(tail("x" * 200_000 + (await frames.get()).decode()))
            finally:
                live.remove("decode")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receive())
            tasks.create_task(decode())

    with capture_logs() as logs:
        async with serving(handler, tmp_path) as stub:
            call = stub.Converse()
            for _ in range(8):
                await call.write(audio(b"a"))
            await asyncio.sleep(0.3)  # until the window is full and both children wait
            assert live == {"receive", "decode"}
            call.cancel()
            for _ in range(100):
                await asyncio.sleep(0.01)  # for the server to notice
                if not live:
                    break
            assert live == set()
    assert logs == []


async def test_a_handler_without_an_end_of_its_own_ends_when_the_client_is_gone(
    tmp_path: Path,
) -> None:
    ended = asyncio.Event()

    async def handler(requests: Requests, _: Send[pb.ConverseResponse], __: Metadata) -> None:
        try:
            async for _request in requests:
                pass
            raise ClientLeftError
        finally:
            ended.set()

    with capture_logs() as logs:
        async with serving(handler, tmp_path) as stub:
            call = stub.Converse()
            await call.write(audio(b"a"))
            call.cancel()
            await asyncio.wait_for(ended.wait(), 5)
    assert logs == []


async def test_a_client_that_closes_its_side_too_early_is_told(tmp_path: Path) -> None:
    async def handler(requests: Requests, _: Send[pb.ConverseResponse], __: Metadata) -> None:
        async for _request in requests:
            pass
        raise ClientLeftError

    async with serving(handler, tmp_path) as stub:
        call = stub.Converse(iter([audio(b"a")]))
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert await call.details() == "the stream ended without finish"


async def test_bytes_that_are_no_message_are_the_clients_error(tmp_path: Path) -> None:
    async def listen(requests: Requests, _: Send[pb.ConverseResponse], _m: Metadata) -> None:
        async for _request in requests:
            pass

    with capture_logs() as logs:
        async with (
            serving(listen, tmp_path),
            open_channel(f"unix:{tmp_path}/sock") as channel,
        ):
            method = "/voxmesh.gateway.v1.GatewayService/Converse"
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method)()
            await call.write(b"\xff\xff\xff")
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "cannot be read" in (await call.details())
    assert logs == []
