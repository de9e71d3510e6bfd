"""The live client, against a gateway that reads from a script."""

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from services.cli.live import HeardWord, Recording, SentLog, Transcript, converse, read_wav
from voxmesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    Context = grpc.aio.ServicerContext[Any, Any]

SECOND = Recording(pcm=b"\0\0" * 8000, sample_rate_hz=8000, channels=1)


def at(seconds: float) -> Duration:
    return Duration(nanos=round(seconds * 1e9) % 10**9, seconds=int(seconds))


def captions(seq: int, tail: str, *words: tuple[str, float]) -> gateway_pb2.ConverseResponse:
    said = [
        gateway_pb2.Word(text=text, start_offset=at(end - 0.1), end_offset=at(end))
        for text, end in words
    ]
    return gateway_pb2.ConverseResponse(
        captions=gateway_pb2.Captions(seq=seq, words=said, tail=tail)
    )


class ScriptedGateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Says one thing per message of audio, the rest after ``finish``."""

    def __init__(self, script: list[gateway_pb2.ConverseResponse]) -> None:
        self.script = list(script)
        self.opened = gateway_pb2.Open()
        self.audio = b""
        self.num_frames = 0
        self.silent = False
        self.refusal: grpc.StatusCode | None = None

    async def Converse(  # noqa: N802 -- the name is the contract's
        self, requests: AsyncIterator[gateway_pb2.ConverseRequest], context: "Context"
    ) -> AsyncIterator[gateway_pb2.ConverseResponse]:
        if self.refusal is not None:
            # grpc.aio forgets the status of a call that ends while it is written to.
            await anext(requests)
            await context.abort(self.refusal, "no room")
        async for request in requests:
            match request.WhichOneof("payload"):
                case "open":
                    self.opened = request.open
                    yield gateway_pb2.ConverseResponse(
                        opened=gateway_pb2.Opened(session_id="1", model="toy")
                    )
                case "audio":
                    self.audio += request.audio
                    self.num_frames += 1
                    if self.script:
                        yield self.script.pop(0)
                case "finish":
                    for rest in self.script:
                        yield rest
                    if self.silent:
                        await asyncio.Event().wait()
                    yield gateway_pb2.ConverseResponse(finished=gateway_pb2.Finished())
                    return


@pytest.fixture
async def gateway() -> AsyncIterator["Callable[..., Any]"]:
    """Starts a scripted gateway; returns it and its address."""
    servers = []

    async def start(*script: gateway_pb2.ConverseResponse) -> tuple[ScriptedGateway, str]:
        server, servicer = grpc.aio.server(), ScriptedGateway(list(script))
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(grace=0)


async def test_a_session_sends_all_audio_and_collects_all_words(
    gateway: "Callable[..., Any]",
) -> None:
    servicer, target = await gateway(
        captions(1, " To bee"),
        captions(2, " or not", (" To", 0.1), (" be", 0.2)),
        captions(3, "", (" or", 0.3), (" not.", 0.5)),
    )
    shown = []
    session = await converse(
        target,
        SECOND,
        language="en",
        speed=5,
        on_captions=lambda t, new: shown.append((t.text, new)),
    )
    assert servicer.audio == SECOND.pcm
    assert servicer.num_frames == 10
    assert (servicer.opened.sample_rate_hz, servicer.opened.language_code) == (8000, "en")
    assert session.model == "toy"
    assert session.transcript.text == " To be or not."
    assert session.transcript.updates == 3
    assert [text for text, _new in shown] == ["", " To be", " To be or not."]
    assert all(0 <= word.final_delay_s < 2 for word in session.transcript.words[:2])


async def test_trouble_is_told_with_the_translation_that_it_is_about(
    gateway: "Callable[..., Any]",
) -> None:
    lost = gateway_pb2.Notice(stage="asr", message="was lost")
    failed = gateway_pb2.Notice(stage="translator", message="failed", target_language_code="pt")
    _, target = await gateway(
        gateway_pb2.ConverseResponse(notice=lost), gateway_pb2.ConverseResponse(notice=failed)
    )
    session = await converse(target, SECOND, speed=5)
    assert session.notices == ("asr: was lost", "translator into pt: failed")


async def test_audio_is_sent_at_the_pace_of_speech(gateway: "Callable[..., Any]") -> None:
    _servicer, target = await gateway()
    session = await converse(target, SECOND, speed=2)
    assert 0.5 <= session.wall_s < 3
    assert session.finish_s < 2


async def test_a_refused_session_raises_what_the_gateway_said(
    gateway: "Callable[..., Any]",
) -> None:
    servicer, target = await gateway()
    servicer.refusal = grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError, match="no room"):
        await converse(target, SECOND, speed=10)


async def test_a_gateway_that_falls_silent_is_given_up(
    gateway: "Callable[..., Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, target = await gateway()
    servicer.silent = True
    monkeypatch.setattr("services.cli.live._ANSWER_S", 0.2)
    with pytest.raises(TimeoutError):
        await converse(target, SECOND, speed=10)


def test_delays_count_from_when_the_words_audio_had_been_sent() -> None:
    sent, transcript = SentLog(), Transcript()
    for position, time in ((0.1, 100.1), (0.2, 100.2), (0.3, 100.3)):
        sent.add(position, time)
    transcript.apply(captions(1, " Hello word").captions, sent, now=100.5)
    transcript.apply(captions(2, " hello, world").captions, sent, now=100.7)
    new = transcript.apply(
        captions(3, "", (" Hello,", 0.15), (" world", 0.3)).captions, sent, now=101.0
    )
    assert [word.text for word in new] == [" Hello,", " world"]
    first = [word.first_delay_s for word in new]
    final = [word.final_delay_s for word in new]
    # "Hello" ends in the second message, sent at 100.2, and stood there from 100.5 on; "world"
    # was first seen when "word" had become it.
    assert first == pytest.approx([0.3, 0.4])
    assert final == pytest.approx([0.8, 0.7])


def test_a_word_that_never_stood_in_the_tail_is_first_seen_when_it_is_final() -> None:
    sent, transcript = SentLog(), Transcript()
    sent.add(1.0, 10.0)
    [word] = transcript.apply(captions(1, "", (" so", 0.5)).captions, sent, now=12.0)
    assert word == HeardWord(" so", 0.5, 2.0, 2.0)


def test_a_recording_is_cut_into_messages_without_losing_a_sample() -> None:
    recording = Recording(pcm=bytes(range(250)) * 2, sample_rate_hz=1000, channels=2)
    frames = recording.frames()
    assert b"".join(frames) == recording.pcm
    assert [len(frame) for frame in frames] == [400, 100]
    assert recording.duration_s == pytest.approx(0.125)


def test_a_wav_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((2, 2, 44100, 0, "NONE", ""))
        out.writeframes(b"\1\2\3\4" * 10)
    assert read_wav(path) == Recording(b"\1\2\3\4" * 10, 44100, 2)


@pytest.mark.parametrize(
    ("width", "reason"), [(3, "samples of 24 bits"), (0, "not a WAV file of 16-bit samples")]
)
def test_what_is_no_wav_of_16_bits_is_refused_with_the_reason(
    tmp_path: Path, width: int, reason: str
) -> None:
    path = tmp_path / "a.wav"
    if width:
        with wave.open(str(path), "wb") as out:
            out.setparams((1, width, 8000, 0, "NONE", ""))
            out.writeframes(bytes(width))
    else:
        path.write_bytes(b"ID3 this is something else")
    with pytest.raises(ValueError, match=reason):
        read_wav(path)
