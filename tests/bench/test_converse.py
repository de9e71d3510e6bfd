"""The client that latency is measured with, against a gateway whose delays are known."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from bench.converse import Heard, converse
from bench.corpus import Clip, TimedWord
from bench.delays import Clockwork
from bench.levels import Level, summary
from voxmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

CLIP = Clip("clip", bytes(3 * 32_000), "to be", "en", (TimedWord("to", 0.5, 0.9),))
PACE = 6.0


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Shows a word when a second of audio has come, and commits it when two have."""

    def __init__(self) -> None:
        self.full = False
        self.received_bytes = 0

    async def Converse(  # noqa: N802 - the name is the contract's
        self,
        requests: AsyncIterator[gateway_pb2.ConverseRequest],
        context: Any,
    ) -> AsyncIterator[gateway_pb2.ConverseResponse]:
        """As the contract has it."""
        if self.full:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
        async for request in requests:
            self.received_bytes += len(request.audio)
            if request.HasField("audio") and self.received_bytes == 32_000:
                yield gateway_pb2.ConverseResponse(captions=gateway_pb2.Captions(seq=1, tail=" To"))
            if request.HasField("audio") and self.received_bytes == 64_000:
                word = gateway_pb2.Word(
                    text=" To",
                    start_offset=Duration(nanos=500_000_000),
                    end_offset=Duration(seconds=1),
                )
                yield gateway_pb2.ConverseResponse(
                    captions=gateway_pb2.Captions(seq=2, words=[word])
                )
            if request.HasField("finish"):
                yield gateway_pb2.ConverseResponse(finished=gateway_pb2.Finished())


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[Gateway, str]]:
    server, servicer = grpc.aio.server(), Gateway()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(grace=0)


async def test_delays_run_from_when_a_word_has_been_spoken_at_the_pace_of_the_clip(
    gateway: tuple[Gateway, str],
) -> None:
    sent: list[float] = []
    heard = await converse(gateway[1], CLIP, pace=PACE, on_sent=sent.append)
    assert heard.failure == ""
    assert sum(sent) == pytest.approx(3.0)
    assert gateway[0].received_bytes == len(CLIP.pcm)
    [delay] = Clockwork(CLIP.words, heard, "en").delays()
    # Spoken after 0.9 s of audio, shown after 1 s and final after 2 s of it.
    assert delay.first_s == pytest.approx(0.1 / PACE, abs=0.1)
    assert delay.final_s == pytest.approx(1.1 / PACE, abs=0.1)
    assert delay.final_s - delay.first_s == pytest.approx(1.0 / PACE, abs=0.1)
    assert delay.time_error_s == pytest.approx(0.1)
    assert heard.end_s == pytest.approx(3.0 / PACE, abs=0.1)
    assert heard.finished_s >= heard.end_s


async def test_what_a_ledger_keeps_of_a_session_is_the_session(
    gateway: tuple[Gateway, str],
) -> None:
    heard = await converse(gateway[1], CLIP, pace=PACE)
    again = Heard.of(heard.row())
    assert again.row() == heard.row()
    assert again.words == heard.words
    assert again.text == " To"


async def test_a_refusal_is_counted_and_its_words_are_not(gateway: tuple[Gateway, str]) -> None:
    heard = await converse(gateway[1], CLIP, pace=PACE)
    gateway[0].full = True
    refused = await converse(gateway[1], CLIP, pace=PACE)
    assert refused.refused
    told = summary(Level(2, [(CLIP, heard), (CLIP, refused)], [], 0))
    assert (told["refused"], told["failures"]) == (1, [])
    assert (told["words_timed"], told["words_said"]) == (1, 1)
    assert told["wer_percent"] == 50  # "be" is lost
    assert told["final_s"]["p50"] == pytest.approx(1.1 / PACE, abs=0.1)
