"""Clients of ``GatewayService.Converse``, and a gateway for them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import grpc.aio
import pytest
from google.rpc import status_pb2

from services.gateway.servicer import add_services
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, Mesh, running, spans_of, words_at
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseResponse]"
Stub: TypeAlias = "rpc.GatewayServiceStub"

RESUMABLE = pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16, resumable=True))
FINISH = pb.ConverseRequest(finish=pb.Finish())
PCM = pb.Open(encoding=pb.ENCODING_LINEAR16)


@asynccontextmanager
async def gateway_channel(
    *seconds: float, **settings: Any
) -> AsyncIterator[tuple[Mesh, grpc.aio.Channel]]:
    said = words_at(*seconds)
    async with running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh:
        server = grpc.aio.server()
        add_services(mesh.gateway, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield mesh, channel
        await server.stop(grace=None)


@asynccontextmanager
async def gateway_stub(
    *seconds: float, **settings: Any
) -> AsyncIterator[tuple[Mesh, "rpc.GatewayServiceStub"]]:
    async with gateway_channel(*seconds, **settings) as (mesh, channel):
        yield mesh, rpc.GatewayServiceStub(channel)


def audio(duration_s: float, *, sample_bytes: int = 2, rate: int = RATE) -> Iterable[bytes]:
    left = round(duration_s * rate) * sample_bytes
    while left > 0:
        yield bytes(min(left, 3201))
        left -= 3201


async def converse(
    stub: "rpc.GatewayServiceStub",
    opening: pb.Open,
    blocks: Iterable[bytes],
    **options: Any,
) -> list[pb.ConverseResponse]:
    async def requests() -> AsyncIterator[pb.ConverseRequest]:
        yield pb.ConverseRequest(open=opening)
        for block in blocks:
            yield pb.ConverseRequest(audio=block)
        yield pb.ConverseRequest(finish=pb.Finish())

    async with asyncio.timeout(30):
        return [response async for response in stub.Converse(requests(), **options)]


async def read(
    call: "grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseResponse]", *, until: str
) -> list[pb.ConverseResponse]:
    responses: list[pb.ConverseResponse] = []
    while not responses or responses[-1].WhichOneof("event") != until:
        response = await call.read()
        assert isinstance(response, pb.ConverseResponse)
        responses.append(response)
    return responses


async def refusal(
    stub: "rpc.GatewayServiceStub", *requests: pb.ConverseRequest, **options: Any
) -> grpc.aio.AioRpcError:
    """How a call ends that says this and goes on listening.

    Nothing is written after: grpc.aio forgets the status of a call that ended during a write.
    """
    call = stub.Converse(**options)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with asyncio.timeout(10):
            for request in requests:
                await call.write(request)
            while await call.read() is not grpc.aio.EOF:
                pass
    return refused.value


def details_of(error: grpc.aio.AioRpcError) -> list[Any]:
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    return list(status.details)


def kinds(responses: Iterable[pb.ConverseResponse]) -> list[str]:
    return [response.WhichOneof("event") or "" for response in responses]


def words_of(responses: Iterable[pb.ConverseResponse]) -> list[str]:
    return [word.text for response in responses for word in response.captions.words]


def resume(token: str, num_words: int) -> pb.ConverseRequest:
    return pb.ConverseRequest(resume=pb.Resume(token=token, num_words=num_words))


async def opened(stub: Stub, first: pb.ConverseRequest = RESUMABLE) -> tuple[Call, pb.Opened]:
    call = stub.Converse()
    await call.write(first)
    [response] = await read(call, until="opened")
    return call, response.opened


async def say(call: Call, audio: bytes) -> None:
    for start in range(0, len(audio), 3200):
        await call.write(pb.ConverseRequest(audio=audio[start : start + 3200]))


async def break_off(call: Call) -> None:
    """Leave without a word, and give the gateway the time to notice."""
    call.cancel()
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call.code()
    await asyncio.sleep(0.1)
