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
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import DeviceError, MeshError, OverloadedError
from services.gateway.app import create_app
from services.gateway.servicer import add_services
from tests.gateway.conversing import PCM, details_of, refusal
from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served, silence
from tests.gateway.listening import RAW
from tests.gateway.test_openai import BOTH, wav
from tests.gateway.test_session import config, transcribe
from tests.settings.serving import until
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_asr_pb2_grpc as riva_rpc
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

Door: TypeAlias = Callable[[int, int], Awaitable[None]]

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


async def over_listen(port: int, _grpc_port: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{port}/v1/listen?{RAW}", proxy=None):
            pass
    response = refused.value.response
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert json.loads(response.body or b"")["err_code"] == "TOO_MANY_REQUESTS"


def over_openai(path: str) -> Door:
    async def refused(port: int, _grpc_port: int) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"http://127.0.0.1:{port}{path}",
                data={"model": "whisper-1"},
                files={"file": ("audio.wav", wav(), "audio/x-wav")},
            )
        error = answer.json()["error"]
        assert answer.status_code == 429
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert int(answer.headers["retry-after"]) >= 1

    return refused


async def over_deepgram(port: int, _grpc_port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v1/listen", content=wav())
    assert (answer.status_code, answer.json()["err_code"]) == (429, "TOO_MANY_REQUESTS")
    assert int(answer.headers["retry-after"]) >= 1


DOORS: dict[str, Door] = {
    "Converse": over_grpc,
    "RivaSpeechRecognition": over_riva,
    "/v1/converse": over_websocket,
    "/asr": over_asr,
    "/v1/realtime": over_realtime,
    "/v1/listen": over_listen,
    "POST /v1/audio/transcriptions": over_openai("/v1/audio/transcriptions"),
    "POST /audio/transcriptions": over_openai("/audio/transcriptions"),
    "POST /v1/audio/translations": over_openai("/v1/audio/translations"),
    "POST /v1/listen": over_deepgram,
}
"""How each of them says that there is no room."""
MINTS = {
    "POST /v1/auth/grant",
    "POST /v1/realtime/client_secrets",
    "POST /v1/realtime/transcription_sessions",
}
"""They make keys, for which there is another limit."""
ALL_DOORS = pytest.mark.parametrize("door", DOORS)


async def test_every_door_is_among_those_that_are_tried() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh:
        routes = create_app(mesh.gateway).routes
    found = {route.path for route in routes if isinstance(route, WebSocketRoute)}
    posts = [route for route in routes if isinstance(route, Route)]
    posts = [route for route in posts if "POST" in (route.methods or ())]
    found |= {f"POST {route.path}" for route in posts}
    assert found - MINTS == {name for name in DOORS if "/" in name}


@ALL_DOORS
async def test_a_full_gateway_refuses_in_the_words_of_the_protocol(door: str) -> None:
    """O1."""
    async with (
        running(FakeVad([]), FakeAsr(tasks=BOTH), max_sessions=1) as mesh,
        ports(mesh) as both,
        mesh.gateway.session(config()),
    ):
        await DOORS[door](*both)
        assert len(mesh.asr.streams) == 1


@ALL_DOORS
async def test_recognisers_without_room_refuse_in_the_words_of_the_protocol(door: str) -> None:
    """O1."""
    async with running(FakeVad([]), FakeAsr(tasks=BOTH)) as mesh, ports(mesh) as both:
        mesh.asr.faults.refusals = MANY
        await DOORS[door](*both)
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
