"""A client's connection breaks, and it goes on with its session in another."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import grpc.aio
import pytest

from services.common.errors import DeviceError
from tests.gateway.conversing import (
    FINISH,
    RESUMABLE,
    Call,
    Stub,
    break_off,
    gateway_stub,
    kinds,
    opened,
    read,
    refusal,
    resume,
    say,
    words_of,
)
from tests.gateway.fakes import RATE, Mesh
from tests.settings.serving import until
from voxmesh.gateway.v1 import gateway_pb2 as pb

SAID = (1.0, 2.5, 9.0)
AUDIO = bytes(11 * RATE * 2)


async def rest(call: Call) -> list[pb.ConverseResponse]:
    await call.write(FINISH)
    async with asyncio.timeout(10):
        return await read(call, until="finished")


async def all_received(call: Call) -> int:
    """Wait until the gateway says that all audio has arrived; how much that is."""
    num_bytes = 0
    async with asyncio.timeout(10):
        while num_bytes < len(AUDIO):
            num_bytes = (await read(call, until="received"))[-1].received.num_bytes
    return num_bytes


async def left_after_a_word(stub: Stub) -> tuple[pb.Opened, list[pb.ConverseResponse]]:
    """A session that its client has lost in mid-sentence, and what the client has of it."""
    call, first = await opened(stub)
    await say(call, AUDIO[: 4 * RATE * 2])
    async with asyncio.timeout(10):
        heard = await read(call, until="captions")
        while not words_of(heard):
            heard += await read(call, until="captions")
    await break_off(call)
    return first, heard


@pytest.fixture
async def mesh_and_stub() -> AsyncIterator[tuple[Mesh, Stub]]:
    async with gateway_stub(*SAID) as served:
        yield served


@pytest.fixture
def stub(mesh_and_stub: tuple[Mesh, Stub]) -> Stub:
    return mesh_and_stub[1]


@pytest.fixture
def mesh(mesh_and_stub: tuple[Mesh, Stub]) -> Mesh:
    return mesh_and_stub[0]


async def test_a_resumed_session_goes_on_where_it_was(mesh: Mesh, stub: Stub) -> None:
    """C1, W1."""
    first, heard = await left_after_a_word(stub)
    call, again = await opened(stub, resume(first.resume_token, len(words_of(heard))))
    assert (again.session_id, again.resume_token) == (first.session_id, first.resume_token)
    assert 0 < again.received_bytes <= 4 * RATE * 2
    await say(call, AUDIO[again.received_bytes :])
    heard += await rest(call)
    assert words_of(heard) == [word.text for word in mesh.asr.words]
    places = [r.captions.first_word for r in heard if r.captions.words]
    assert places == sorted(set(places))


async def test_what_was_said_while_nobody_listened_is_told(mesh: Mesh, stub: Stub) -> None:
    """C1."""
    call, first = await opened(stub)
    await say(call, AUDIO)
    await all_received(call)
    await break_off(call)
    call, again = await opened(stub, resume(first.resume_token, 1))
    assert again.received_bytes == len(AUDIO)
    assert words_of(await rest(call)) == [word.text for word in mesh.asr.words[1:]]


async def test_a_client_that_missed_the_end_is_told_it_again(mesh: Mesh, stub: Stub) -> None:
    """C2."""
    call, first = await opened(stub)
    await say(call, AUDIO)
    await rest(call)
    call, _ = await opened(stub, resume(first.resume_token, 0))
    assert words_of(await rest(call)) == [word.text for word in mesh.asr.words]


async def test_a_flush_that_was_not_answered_is_asked_again(stub: Stub) -> None:
    """C1."""
    call, first = await opened(stub)
    await say(call, AUDIO)
    await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=5)))
    await break_off(call)
    call, again = await opened(stub, resume(first.resume_token, 0))
    await say(call, AUDIO[again.received_bytes :])
    await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=5)))
    async with asyncio.timeout(10):
        heard = await read(call, until="flushed")
    assert words_of(heard) == [" w0", " w1", " w2"]


async def test_audio_that_has_arrived_is_acknowledged(stub: Stub) -> None:
    call, _ = await opened(stub)
    await say(call, AUDIO)
    assert await all_received(call) == len(AUDIO)
    call.cancel()


async def test_a_new_connection_takes_the_place_of_one_that_hangs(mesh: Mesh, stub: Stub) -> None:
    """C4. The gateway may learn of a dead connection later than the client."""
    old, first = await opened(stub)
    await say(old, AUDIO[: 4 * RATE * 2])
    new, again = await opened(stub, resume(first.resume_token, 0))
    with pytest.raises(grpc.aio.AioRpcError) as superseded:
        async with asyncio.timeout(10):
            while await old.read() is not grpc.aio.EOF:
                pass
    assert superseded.value.code() is grpc.StatusCode.ABORTED
    await say(new, AUDIO[again.received_bytes :])
    assert words_of(await rest(new)) == [word.text for word in mesh.asr.words]


async def test_why_a_session_failed_is_told_to_the_client_that_returns() -> None:
    """C2."""
    async with gateway_stub(*SAID, asr_patience_s=0.1) as (mesh, stub):
        mesh.asr.faults.always[round(2.6 * RATE)] = DeviceError("the model failed")
        mesh.asr.faults.gate.clear()
        call, first = await opened(stub)
        await say(call, AUDIO)
        await all_received(call)
        await break_off(call)
        mesh.asr.faults.gate.set()
        await until_nothing_is_open(mesh)
        error = await refusal(stub, resume(first.resume_token, 0))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "asr" in (error.details() or "")


async def until_nothing_is_open(mesh: Mesh) -> None:
    await until(lambda: not mesh.gateway.open_sessions)


async def test_a_session_that_nobody_returns_to_ends_and_is_forgotten() -> None:
    """C1."""
    async with gateway_stub(*SAID, resume_s=0.3) as (mesh, stub):
        first, _ = await left_after_a_word(stub)
        assert mesh.gateway.open_sessions == 1
        await until_nothing_is_open(mesh)
        await asyncio.sleep(0.4)
        error = await refusal(stub, resume(first.resume_token, 0))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert mesh.asr.live == mesh.vad.live == 0


async def test_a_session_that_was_not_opened_as_resumable_ends_with_its_connection(
    mesh: Mesh, stub: Stub
) -> None:
    """C6."""
    call, first = await opened(
        stub, pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16))
    )
    assert not first.resume_token
    await break_off(call)
    await until_nothing_is_open(mesh)


@pytest.mark.parametrize(
    ("token", "key"), [("made up", "a"), ("", "a"), (None, "b")], ids=["unknown", "none", "foreign"]
)
async def test_a_token_is_worth_nothing_to_others(token: str | None, key: str) -> None:
    """C3."""
    async with gateway_stub(*SAID, keys={"alice": "a", "bob": "b"}) as (_, stub):
        call = stub.Converse(metadata=(("authorization", "Bearer a"),))
        await call.write(RESUMABLE)
        [response] = await read(call, until="opened")
        token = response.opened.resume_token if token is None else token
        error = await refusal(
            stub, resume(token, 0), metadata=(("authorization", f"Bearer {key}"),)
        )
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert response.opened.resume_token not in (error.details() or "")
        call.cancel()


@pytest.mark.parametrize("num_words", [-1, 99])
async def test_words_that_the_client_cannot_have_are_refused(stub: Stub, num_words: int) -> None:
    first, heard = await left_after_a_word(stub)
    error = await refusal(stub, resume(first.resume_token, num_words))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    call, _ = await opened(stub, resume(first.resume_token, len(words_of(heard))))
    assert kinds(await rest(call))[-1] == "finished"


async def test_a_stopping_gateway_does_not_wait_for_clients_that_are_away(
    mesh: Mesh, stub: Stub
) -> None:
    """G1."""
    await left_after_a_word(stub)
    async with asyncio.timeout(20):
        await mesh.gateway.drain(1.0)
    assert mesh.gateway.open_sessions == 0


async def test_no_more_ended_sessions_are_kept_than_may_be_open() -> None:
    async with gateway_stub(max_sessions=2) as (mesh, stub):
        tokens: Sequence[str] = []
        for _ in range(4):
            call, first = await opened(stub)
            await rest(call)
            await until_nothing_is_open(mesh)
            tokens = [*tokens, first.resume_token]
        oldest = await refusal(stub, resume(tokens[0], 0))
        assert oldest.code() is grpc.StatusCode.NOT_FOUND
        call, _ = await opened(stub, resume(tokens[3], 0))
        await rest(call)


async def test_trouble_is_told_again_to_a_client_that_returns() -> None:
    """C5."""
    async with gateway_stub(*SAID) as (mesh, stub):
        mesh.asr.faults.once = {round(2.6 * RATE): DeviceError("boom")}
        call, first = await opened(stub)
        await say(call, AUDIO)
        await all_received(call)
        await break_off(call)
        call, _ = await opened(stub, resume(first.resume_token, 0))
        heard = await rest(call)
    told = [response.notice.code for response in heard if response.WhichOneof("event") == "notice"]
    assert told == ["DEGRADED", "RECOVERED"]
    assert words_of(heard) == [" w0", " w1", " w2"]


async def test_another_gateway_does_not_know_the_session() -> None:
    """G2, G3."""
    async with gateway_stub(*SAID) as (_, stub), gateway_stub(*SAID) as (_, other):
        first, _ = await left_after_a_word(stub)
        error = await refusal(other, resume(first.resume_token, 1))
    assert error.code() is grpc.StatusCode.NOT_FOUND
