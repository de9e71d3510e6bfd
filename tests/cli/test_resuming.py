"""The client that resumes its session, against a gateway that breaks off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from services.cli.resuming import Outbox, converse
from services.common.errors import UpstreamError
from services.common.rpc import status_of
from tests.settings.serving import until
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

AUDIO = b"abcdefghij"


def captions(first_word: int, *texts: str) -> pb.ConverseResponse:
    words = [pb.Word(text=text) for text in texts]
    return pb.ConverseResponse(captions=pb.Captions(first_word=first_word, words=words))


class Fickle(rpc.GatewayServiceServicer):
    """Breaks off every call but the last, after so many bytes; says a word with each call."""

    def __init__(self, breaks_after: Sequence[int], *, says_why: bool = False) -> None:
        self.breaks_after = list(breaks_after)
        self.says_why = says_why
        self.accepts = True
        self.firsts: list[pb.ConverseRequest] = []
        self.audio = b""

    async def Converse(  # noqa: N802 -- the name is the contract's
        self, requests: AsyncIterator[pb.ConverseRequest], context: "Context"
    ) -> AsyncIterator[pb.ConverseResponse]:
        self.firsts.append(await anext(requests))
        if not self.accepts:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody is at home")
        yield pb.ConverseResponse(
            opened=pb.Opened(
                resume_token="t",
                resume_within=Duration(seconds=5),
                received_bytes=len(self.audio),
            )
        )
        number = len(self.firsts) - 1
        yield captions(number, f" w{number}")
        async for request in requests:
            self.audio += request.audio
            if self.breaks_after and len(self.audio) >= self.breaks_after[0]:
                self.audio = self.audio[: self.breaks_after.pop(0)]
                if self.says_why:
                    await context.abort_with_status(status_of(UpstreamError("asr is gone")))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            if request.HasField("finish"):
                yield pb.ConverseResponse(finished=pb.Finished())
                return


@asynccontextmanager
async def stub_of(gateway: Fickle) -> AsyncIterator["rpc.GatewayServiceStub"]:
    server = grpc.aio.server()
    rpc.add_GatewayServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.GatewayServiceStub(channel)
    await server.stop(grace=None)


async def held(stub: "rpc.GatewayServiceStub") -> list[pb.ConverseResponse]:
    """A session to its end, its audio added while it runs; what its client is told."""
    answers: list[pb.ConverseResponse] = []
    outbox = Outbox()

    async def record() -> None:
        for start in range(0, len(AUDIO), 2):
            outbox.add(AUDIO[start : start + 2])
            await asyncio.sleep(0.01)  # as a microphone does
        outbox.end()

    async with asyncio.timeout(20):
        recording = asyncio.create_task(record())
        try:
            await converse(stub, pb.Open(language_code="en"), outbox, answers.append)
        finally:
            recording.cancel()
    return answers


async def test_a_session_goes_on_over_as_many_calls_as_it_takes() -> None:
    gateway = Fickle([3, 7])
    async with stub_of(gateway) as stub:
        answers = await held(stub)
    assert gateway.audio == AUDIO
    opening, *resumed = gateway.firsts
    assert opening.open == pb.Open(language_code="en", resumable=True)
    assert [first.resume for first in resumed] == [
        pb.Resume(token="t", num_words=1),
        pb.Resume(token="t", num_words=2),
    ]
    words = [word.text for answer in answers for word in answer.captions.words]
    assert words == [" w0", " w1", " w2"]
    assert answers[-1].HasField("finished")


async def test_a_session_that_the_gateway_ends_is_not_resumed() -> None:
    gateway = Fickle([3], says_why=True)
    async with stub_of(gateway) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="asr is gone"):
            await held(stub)
    assert len(gateway.firsts) == 1


async def test_a_session_that_was_never_accepted_is_not_tried_again() -> None:
    gateway = Fickle([])
    gateway.accepts = False
    async with stub_of(gateway) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="nobody is at home"):
            await held(stub)
    assert len(gateway.firsts) == 1


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_call_that_has_ended_leaves_nobody_waiting_for_audio(accepts: bool) -> None:
    gateway = Fickle([1], says_why=True)
    gateway.accepts = accepts
    outbox = Outbox()
    outbox.add(AUDIO[:2])
    async with stub_of(gateway) as stub:
        before = len(asyncio.all_tasks())
        with pytest.raises(grpc.aio.AioRpcError):
            await converse(stub, pb.Open(), outbox, lambda _answer: None)
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_audio_is_kept_until_it_has_arrived() -> None:
    outbox = Outbox()
    for data in (b"ab", b"cd", b"ef"):
        outbox.add(data)
    outbox.acknowledge(3)
    assert outbox.kept_bytes == 4
    outbox.end()
    wanted, over = asyncio.Event(), asyncio.Event()
    assert [data async for data in outbox.after(3, wanted)] == [b"d", b"ef"]
    assert [data async for data in outbox.after(6, wanted)] == []
    over.set()
    assert [data async for data in outbox.after(3, over)] == []
