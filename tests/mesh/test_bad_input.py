"""Whatever a client sends or fails to send, the mesh goes on serving the others."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.common.channel import open_channel
from tests.conftest import ServedMesh
from tests.mesh.asr import BECKETT, Watched, silence, watch
from tests.mesh.rest import upload
from tests.mesh.wording import assert_same_words, difference
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

NOISE = random.Random(0).randbytes(64_000)
PAGE = b"<html><body>404 not found</body></html>" * 300
EBML = b"\x1a\x45\xdf\xa3"
"""What WebM starts with."""

_LEAKS_GONE_S = 20.0


@pytest.fixture(scope="module")
def wav(speech: Path) -> bytes:
    """beckett.wav as it is."""
    return (speech / "beckett.wav").read_bytes()


@pytest.fixture(autouse=True)
def served_afterwards(mesh_tiny: ServedMesh, wav: bytes) -> Iterator[None]:
    """After every test here, the same processes serve the next client."""
    before = [mesh_tiny.pid_of(service) for service in ("gateway", "vad", "asr")]
    yield
    answer = upload(mesh_tiny, wav)
    assert answer.status_code == 200, answer.text
    assert difference(BECKETT, answer.json()["text"]).wer_percent == 0
    assert [mesh_tiny.pid_of(service) for service in ("gateway", "vad", "asr")] == before


# /asr


async def exchange(
    mesh: ServedMesh, frames: Sequence[bytes | str], *, query: str = "language=en&mode=diff"
) -> Watched:
    """Send frames as fast as they are taken, then the end; everything that came back."""
    watched = Watched()
    async with (
        asyncio.timeout(60),
        connect(f"{mesh.ws_url}/asr?{query}", proxy=None) as socket,
    ):
        with suppress(ConnectionClosed):
            for frame in [*frames, b""]:
                await socket.send(frame)
        watched.take_all([json.loads(data) async for data in until_ready(socket)])
    return watched


async def until_ready(socket: ClientConnection) -> AsyncIterator[str]:
    """What comes, to ``ready_to_stop`` or the connection's end."""
    async for data in socket:
        yield str(data)
        if "ready_to_stop" in str(data):
            return


async def test_text_and_garbage_between_the_audio_do_not_change_what_is_heard(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    """P29."""
    texts = ["", "hello", "{", '{"type":"nonsense"}', "[1, 2]", "\x00", "null", "x" * 100_000]
    frames: list[bytes | str] = []
    for number, start in enumerate(range(0, len(beckett), 6400)):
        frames += [beckett[start : start + 6400], texts[number % len(texts)]]
    watched = await exchange(mesh_tiny, frames)
    assert watched.messages[-1] == {"type": "ready_to_stop"}
    assert_same_words(BECKETT, watched.text)


async def test_audio_may_be_cut_anywhere_even_in_the_middle_of_a_sample(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    frames = [beckett[start : start + 3331] for start in range(0, len(beckett), 3331)]
    watched = await exchange(mesh_tiny, [*frames, b"\x01"])
    assert_same_words(BECKETT, watched.text)


async def test_a_whole_recording_in_one_frame_is_heard_whole(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    watched = await exchange(mesh_tiny, [silence(60) + beckett])
    assert_same_words(BECKETT, watched.text)


async def test_a_frame_that_is_too_large_ends_its_connection_alone(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    other = asyncio.create_task(watch(mesh_tiny.ws_url, beckett), name="test.other")
    async with connect(f"{mesh_tiny.ws_url}/asr?language=en", proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.send(bytes(17 * 1024 * 1024))
            while True:
                await asyncio.wait_for(socket.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert_same_words(BECKETT, (await other).text)


@pytest.mark.parametrize(
    "frames",
    [[], [b"\x00"], [NOISE], [PAGE], [bytes(32_000)]],
    ids=["nothing", "half a sample", "noise", "a page", "a second of silence"],
)
async def test_what_holds_no_speech_ends_like_any_session_without_words(
    mesh_tiny: ServedMesh, frames: list[bytes]
) -> None:
    watched = await exchange(mesh_tiny, frames)
    assert watched.messages[-1] == {"type": "ready_to_stop"}
    assert watched.text == ""


@pytest.mark.parametrize(
    "data", [EBML + NOISE, b"OggS" + NOISE, b"RIFF\xff\xff\xff\xffWAVE" + NOISE, b"fLaC" + NOISE]
)
async def test_a_broken_container_is_said_before_ready_to_stop(
    mesh_tiny: ServedMesh, data: bytes
) -> None:
    watched = await exchange(mesh_tiny, [data])
    *_, state, last = watched.messages
    assert (state["status"], last) == ("error", {"type": "ready_to_stop"})
    assert "audio" in state["error"] or "decoded" in state["error"]


async def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(
    mesh_tiny: ServedMesh, wav: bytes
) -> None:
    watched = await exchange(mesh_tiny, [wav[: len(wav) // 2]])
    assert watched.messages[-1] == {"type": "ready_to_stop"}
    assert watched.text.lower().startswith("ever tried")
    assert "better" not in watched.text.lower()


@pytest.mark.parametrize(
    "query",
    ["language=xx", "language=de", "model=whisper-99", "language=en&target_language=fr"],
)
async def test_a_session_that_cannot_be_had_is_refused_with_its_reason(
    mesh_tiny: ServedMesh, query: str
) -> None:
    async with connect(f"{mesh_tiny.ws_url}/asr?{query}", proxy=None) as socket:
        refusal = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert refusal["type"] == "error"
        assert query.rpartition("=")[2] in refusal["error"]
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400


# POST /v1/audio/transcriptions


@pytest.mark.parametrize(
    ("recording", "fields", "status"),
    [
        (b"", {}, 400),
        (b"\x00", {}, 400),
        (PAGE, {}, 400),
        (NOISE, {}, 400),
        (EBML + NOISE, {}, 400),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", {}, 400),
        (None, {"language": "klingon"}, 400),
        (None, {"language": "de"}, 400),
        (None, {"model": "whisper-99"}, 404),
        (None, {"response_format": "docx"}, 400),
        (None, {"temperature": "warm"}, 400),
        (None, {"timestamp_granularities[]": "sentence"}, 400),
    ],
)
def test_an_upload_that_cannot_be_served_is_refused_in_openais_form(
    mesh_tiny: ServedMesh, wav: bytes, recording: bytes | None, fields: dict[str, str], status: int
) -> None:
    answer = upload(mesh_tiny, wav if recording is None else recording, **fields)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_an_upload_that_breaks_off_is_read_as_far_as_it_goes(
    mesh_tiny: ServedMesh, wav: bytes
) -> None:
    answer = upload(mesh_tiny, wav[: len(wav) // 2])
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].lower().startswith("ever tried")


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"no form at all"},
        {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"data": {"file": "a text", "model": "whisper-1"}},
        {"json": {"file": "a text"}},
    ],
)
def test_what_is_no_form_is_refused(mesh_tiny: ServedMesh, request_: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{mesh_tiny.http_url}/v1/audio/transcriptions", trust_env=False, timeout=30, **request_
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


# GatewayService.Converse

OPEN = pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16, language_code="en"))
AUDIO = pb.ConverseRequest(audio=bytes(3200))
FINISH = pb.ConverseRequest(finish=pb.Finish())


def opening(**fields: Any) -> pb.ConverseRequest:
    return pb.ConverseRequest(open=pb.Open(**fields))


async def converse(mesh: ServedMesh, *requests: pb.ConverseRequest) -> list[pb.ConverseResponse]:
    """Send requests without closing the stream; what comes back, to its end."""
    async with open_channel(mesh.grpc_target) as channel:
        call = rpc.GatewayServiceStub(channel).Converse(timeout=60)
        for request in requests:
            await call.write(request)
        responses: list[pb.ConverseResponse] = []
        while isinstance(response := await call.read(), pb.ConverseResponse):
            responses.append(response)
        return responses


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ([AUDIO], "INVALID_ARGUMENT"),
        ([FINISH], "INVALID_ARGUMENT"),
        ([pb.ConverseRequest()], "INVALID_ARGUMENT"),
        ([OPEN, OPEN], "INVALID_ARGUMENT"),
        ([OPEN, pb.ConverseRequest()], "INVALID_ARGUMENT"),
        ([opening(encoding=99)], "INVALID_ARGUMENT"),
        ([opening(task=99)], "INVALID_ARGUMENT"),
        ([opening(encoding=1, sample_rate_hz=7)], "INVALID_ARGUMENT"),
        ([opening(encoding=1, channels=99)], "INVALID_ARGUMENT"),
        ([opening(encoding=1, language_code="xx")], "INVALID_ARGUMENT"),
        ([opening(encoding=1, model="whisper-99")], "NOT_FOUND"),
        ([opening(), pb.ConverseRequest(audio=PAGE)], "INVALID_ARGUMENT"),
        ([opening(), pb.ConverseRequest(audio=EBML + NOISE)], "INVALID_ARGUMENT"),
    ],
)
async def test_a_call_out_of_order_is_refused_with_its_status(
    mesh_tiny: ServedMesh, requests: list[pb.ConverseRequest], code: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await converse(mesh_tiny, *requests)
    assert refused.value.code().name == code


async def test_a_message_that_is_too_large_ends_its_call_alone(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    other = asyncio.create_task(watch(mesh_tiny.ws_url, beckett), name="test.other")
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(mesh_tiny.grpc_target, options=options) as channel:
        call = rpc.GatewayServiceStub(channel).Converse(timeout=60)
        await call.write(OPEN)
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.write(pb.ConverseRequest(audio=bytes(64 * 1024 * 1024)))
            await call.read()
    # The latter is what grpc.aio makes of any status that comes while it is still writing.
    assert refused.value.code().name in {"RESOURCE_EXHAUSTED", "INTERNAL"}
    assert_same_words(BECKETT, (await other).text)


async def test_a_call_may_be_without_speech_or_end_in_half_a_sample(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    assert (await converse(mesh_tiny, OPEN, FINISH))[-1].WhichOneof("event") == "finished"
    odd = [beckett[start : start + 3331] for start in range(0, len(beckett), 3331)]
    audio = [pb.ConverseRequest(audio=data) for data in [*odd, b"\x01"]]
    answers = await converse(mesh_tiny, OPEN, *audio, FINISH)
    words = [word.text for answer in answers for word in answer.captions.words]
    assert_same_words(BECKETT, "".join(words))


# Clients that leave


async def leave_asr(mesh: ServedMesh, beckett: bytes) -> None:
    socket = await connect(f"{mesh.ws_url}/asr?language=en", proxy=None)
    await socket.send(beckett[:64_000])
    socket.transport.abort()
    with suppress(ConnectionClosed):
        await socket.wait_closed()


async def leave_at_once(mesh: ServedMesh, _beckett: bytes) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    writer.write(b"GET /asr HTTP/1.1\r\nHost: here\r\nUpgr")
    writer.transport.abort()


async def leave_converse(mesh: ServedMesh, beckett: bytes) -> None:
    async with open_channel(mesh.grpc_target) as channel:
        call = rpc.GatewayServiceStub(channel).Converse()
        await call.write(OPEN)
        await call.write(pb.ConverseRequest(audio=beckett[:64_000]))
        await call.read()
        call.cancel()


async def leave_half_closed(mesh: ServedMesh, beckett: bytes) -> None:
    async with open_channel(mesh.grpc_target) as channel:
        call = rpc.GatewayServiceStub(channel).Converse()
        await call.write(OPEN)
        await call.write(pb.ConverseRequest(audio=beckett[:64_000]))
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError):
            while True:
                assert await call.read() is not grpc.aio.EOF


async def leave_upload(mesh: ServedMesh, beckett: bytes) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: here\r\nContent-Length: 999999\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition:"
        b' form-data; name="file"; filename="a"\r\n\r\n' + beckett[:64_000]
    )
    await writer.drain()
    writer.transport.abort()


async def test_clients_that_leave_in_the_middle_leave_nothing_behind(
    mesh_tiny: ServedMesh, beckett: bytes
) -> None:
    """Two hundred connections of every kind: no file and no thread more than before (P16)."""
    ways = (leave_asr, leave_at_once, leave_converse, leave_half_closed, leave_upload)
    processes = [psutil.Process(mesh_tiny.pid_of(name)) for name in ("gateway", "vad", "asr")]

    async def leave(times: int) -> None:
        for _ in range(times):
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                for way in ways:
                    tasks.create_task(way(mesh_tiny, beckett), name=way.__name__)

    await leave(10)  # so that pools of threads have as many as they ever get
    held = await settled(processes, None)
    await leave(40)
    left = await settled(processes, held)
    assert no_more(left, held), (left, held)


async def settled(
    processes: Sequence[psutil.Process], wanted: list[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Files and threads of each process, once no more than wanted or no longer changing."""
    deadline = time.monotonic() + _LEAKS_GONE_S
    steady = 0
    held: list[tuple[int, int]] = []
    while time.monotonic() < deadline and steady < 6:
        await asyncio.sleep(0.5)  # for streams behind the gateway to end too
        now = [(process.num_fds(), process.num_threads()) for process in processes]
        if wanted is not None and no_more(now, wanted):
            return now
        steady = steady + 1 if now == held and wanted is None else 0
        held = now
    return held


def no_more(held: list[tuple[int, int]], limit: list[tuple[int, int]]) -> bool:
    """Whether each process holds at most so many files, and threads but for one.

    A pool of threads may still grow; a leak would be one for each of many connections.
    """
    return all(
        files <= most_files and threads <= most_threads + 1
        for (files, threads), (most_files, most_threads) in zip(held, limit, strict=True)
    )
