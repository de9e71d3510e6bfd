"""Who is refused for want of room, and how each protocol says so."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import grpc.aio
import httpx
import pytest
from google.rpc import error_details_pb2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import DeviceError, MeshError, OverloadedError
from services.gateway.servicer import add_services
from tests.gateway.conversing import PCM, details_of, refusal
from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served, silence
from tests.gateway.test_openai import wav
from tests.gateway.test_session import config, transcribe
from tests.settings.serving import until
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_asr_pb2_grpc as riva_rpc
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

MANY = 1000
"""Replicas without room: more than are asked."""


@asynccontextmanager
async def ports(mesh: Mesh) -> AsyncIterator[tuple[int, int]]:
    """Serve HTTP and gRPC; their ports."""
    server = grpc.aio.server()
    add_services(mesh.gateway, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with served(mesh.gateway) as port:
        yield port, grpc_port
    await server.stop(grace=None)


async def over_grpc(_port: int, grpc_port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        error = await refusal(rpc.GatewayServiceStub(channel), pb.ConverseRequest(open=PCM))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(error)[1].Unpack(error_details_pb2.RetryInfo())


async def over_riva(_port: int, grpc_port: int) -> None:
    recognized = riva_pb.RecognizeRequest(audio=wav())
    config = riva_pb.StreamingRecognitionConfig()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = riva_rpc.RivaSpeechRecognitionStub(channel)
        stream = stub.StreamingRecognize()
        await stream.write(riva_pb.StreamingRecognizeRequest(streaming_config=config))
        for reply in (stub.Recognize(recognized), stream.read()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await reply
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(refused.value)[1].Unpack(error_details_pb2.RetryInfo())


async def over_websocket(port: int, _grpc_port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/v1/converse", proxy=None) as socket:
        await socket.send(json.dumps({"open": {"encoding": "ENCODING_LINEAR16"}}))
        told = json.loads(await socket.recv())["error"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert told["status"] == "RESOURCE_EXHAUSTED"
    assert told["retry_after_s"] > 0
    assert socket.close_code == 1013


async def over_asr(port: int, _grpc_port: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{port}/asr", proxy=None):
            pass
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1


async def over_realtime(port: int, _grpc_port: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{port}/v1/realtime", proxy=None):
            pass
    response = refused.value.response
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert json.loads(response.body or b"")["error"]["code"] == "rate_limit_exceeded"


async def over_rest(port: int, _grpc_port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"http://127.0.0.1:{port}/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("audio.wav", wav(), "audio/x-wav")},
        )
    error = answer.json()["error"]
    assert answer.status_code == 429
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(answer.headers["retry-after"]) >= 1


Door: TypeAlias = Callable[[int, int], Awaitable[None]]
DOORS = pytest.mark.parametrize(
    "door", [over_grpc, over_riva, over_websocket, over_asr, over_realtime, over_rest]
)


@DOORS
async def test_a_full_gateway_refuses_in_the_words_of_the_protocol(door: Door) -> None:
    """O1."""
    async with (
        running(FakeVad([]), FakeAsr(), max_sessions=1) as mesh,
        ports(mesh) as both,
        mesh.gateway.session(config()),
    ):
        await door(*both)
        assert len(mesh.asr.streams) == 1


@DOORS
async def test_recognisers_without_room_refuse_in_the_words_of_the_protocol(door: Door) -> None:
    """O1."""
    async with running(FakeVad([]), FakeAsr()) as mesh, ports(mesh) as both:
        mesh.asr.faults.refusals = MANY
        await door(*both)
        assert mesh.gateway.open_sessions == 0


async def test_a_replica_that_has_room_is_found_behind_some_that_have_none() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh:
        mesh.asr.faults.refusals = 2
        session = await transcribe(mesh, silence(1))
    assert session.transcript.notices == []


async def test_a_session_that_was_let_in_waits_for_room_when_it_has_to_move() -> None:
    """O2."""
    vad, asr = FakeVad([]), FakeAsr()
    async with running(vad, asr) as mesh, mesh.gateway.session(config()) as session:
        mesh.asr.faults.refusals = 4
        vad.add(0, 8000)
        asr.faults.once = {8000: DeviceError("lost")}
        await session.run(silence(2))
        assert mesh.asr.faults.refusals == 0
    assert session.transcript.finished


async def test_a_session_that_is_let_in_and_never_run_leaves_no_stream() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh:
        async with mesh.gateway.session(config()):
            assert mesh.asr.live == 1
        await until(lambda: mesh.asr.live == 0)


async def test_a_recogniser_that_cannot_be_reached_refuses_nobody_at_the_door() -> None:
    """F6."""
    async with running(FakeVad([]), FakeAsr()) as mesh:
        await mesh.asr_replica.kill()
        async with mesh.gateway.session(config()) as session:
            await mesh.asr_replica.start()
            await session.run(silence(1))
    assert [notice.code for notice in session.transcript.notices] == ["DEGRADED", "RECOVERED"]


CALLS = 3
"""Attempts of gRPC's own to make a call that is UNAVAILABLE."""


@pytest.mark.parametrize("at_open", [[DeviceError("is gone")] * CALLS, [None]])
async def test_a_replica_that_is_lost_lets_nobody_in_whom_the_others_refuse(
    at_open: list[MeshError | None],
) -> None:
    """O1."""
    async with running(FakeVad([]), FakeAsr(), hedge_s=0.1) as mesh:
        mesh.asr.faults.at_open = at_open
        mesh.asr.faults.refusals = MANY
        with pytest.raises(OverloadedError):
            async with mesh.gateway.session(config()):
                pass


async def test_a_session_that_was_let_in_without_a_recogniser_is_not_refused_by_one() -> None:
    """O2."""
    async with running(FakeVad([]), FakeAsr()) as mesh:
        mesh.asr.faults.at_open = [DeviceError("is gone")] * (3 * CALLS)
        async with mesh.gateway.session(config()) as session:
            await session.run(silence(1))
        assert [stream.open.moved for stream in mesh.asr.streams] == [True]


async def test_an_upload_that_has_no_room_is_refused_before_it_has_arrived() -> None:
    """O1."""
    async with (
        running(FakeVad([]), FakeAsr(), max_sessions=1) as mesh,
        served(mesh.gateway) as port,
        mesh.gateway.session(config()),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: gateway\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 429")
        writer.close()
        await writer.wait_closed()
