"""``nvidia.riva.asr.RivaSpeechRecognition`` over a real channel."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np
import pytest

from services.common.errors import DeviceError
from tests.gateway.conversing import audio, gateway_channel
from tests.gateway.encode import encoded
from tests.gateway.fakes import RATE, FakeDiarizer, Mesh
from tests.gateway.test_session import config as session_config
from tests.settings.serving import until
from voxmesh.foreign.riva import riva_asr_pb2 as pb
from voxmesh.foreign.riva import riva_asr_pb2_grpc as rpc
from voxmesh.foreign.riva import riva_common_pb2 as common_pb

Call: TypeAlias = (
    "grpc.aio.StreamStreamCall[pb.StreamingRecognizeRequest, pb.StreamingRecognizeResponse]"
)
Stub: TypeAlias = "rpc.RivaSpeechRecognitionStub"

PCM = pb.RecognitionConfig(encoding=common_pb.LINEAR_PCM, sample_rate_hertz=RATE)
SILENCE = np.zeros(4 * RATE, np.int16)
CONFIG_REQUEST = pb.RivaSpeechRecognitionConfigRequest()


@asynccontextmanager
async def riva_stub(*seconds: float, **settings: Any) -> AsyncIterator[tuple[Mesh, Stub]]:
    async with gateway_channel(*seconds, **settings) as (mesh, channel):
        yield mesh, rpc.RivaSpeechRecognitionStub(channel)


def opening(
    config: pb.RecognitionConfig = PCM, *, interim_results: bool = False
) -> pb.StreamingRecognizeRequest:
    asked = pb.StreamingRecognitionConfig(config=config, interim_results=interim_results)
    return pb.StreamingRecognizeRequest(streaming_config=asked)


def heard(data: bytes) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(audio_content=data)


async def stream(
    stub: Stub, first: pb.StreamingRecognizeRequest, blocks: Iterable[bytes]
) -> list[pb.StreamingRecognizeResponse]:
    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield first
        for block in blocks:
            yield heard(block)

    async with asyncio.timeout(30):
        return [response async for response in stub.StreamingRecognize(requests())]


def finals(responses: Iterable[pb.StreamingRecognizeResponse]) -> str:
    results = [result for response in responses for result in response.results]
    return "".join(r.alternatives[0].transcript for r in results if r.is_final)


async def refusal(
    stub: Stub, *requests: pb.StreamingRecognizeRequest, **options: Any
) -> grpc.aio.AioRpcError:
    call = stub.StreamingRecognize(**options)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with asyncio.timeout(10):
            for request in requests:
                await call.write(request)
            while await call.read() is not grpc.aio.EOF:
                pass
    return refused.value


def wav(duration_s: float, rate: int = RATE) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(2 * round(duration_s * rate)))
    return data.getvalue()


async def test_every_word_is_in_one_final_result_and_the_end_is_ok() -> None:
    """W1, W2."""
    async with riva_stub(1.0, 1.5, 4.0, 4.5, 9.0) as (_, stub):
        responses = await stream(stub, opening(interim_results=True), audio(11))
    assert finals(responses) == "w0 w1 w2 w3 w4 "
    results = [result for response in responses for result in response.results]
    assert all(len(result.alternatives) == 1 for result in results)
    assert results[-1].is_final
    assert any(not result.is_final for result in results)
    processed = [result.audio_processed for result in results]
    assert processed == sorted(processed)


async def test_without_interim_results_all_are_final() -> None:
    async with riva_stub(1.0, 4.0) as (_, stub):
        responses = await stream(stub, opening(), audio(6))
    results = [result for response in responses for result in response.results]
    assert [r.alternatives[0].transcript for r in results if r.is_final] == ["w0 ", "w1 "]
    assert all(result.is_final for result in results)


async def test_an_utterance_is_final_while_the_client_is_silent_and_stays() -> None:
    async with riva_stub(1.0, 1.5) as (_, stub):
        call = stub.StreamingRecognize()
        await call.write(opening())
        for block in audio(4):
            await call.write(heard(block))
        async with asyncio.timeout(10):
            response = await call.read()
            assert isinstance(response, pb.StreamingRecognizeResponse)
            assert finals([response]) == "w0 w1 "
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK


async def test_an_utterance_may_be_ended_by_force() -> None:
    async with riva_stub(1.0, 1.6, 4.0) as (_, stub):
        call = stub.StreamingRecognize()
        await call.write(opening())
        for block in audio(2.1):
            await call.write(heard(block))
        await call.write(pb.StreamingRecognizeRequest(runtime_config={"force_eou": "true"}))
        async with asyncio.timeout(10):
            response = await call.read()
            assert isinstance(response, pb.StreamingRecognizeResponse)
            assert finals([response]) == "w0 w1 "
            for block in audio(3):
                await call.write(heard(block))
            await call.done_writing()
            last = await call.read()
            assert isinstance(last, pb.StreamingRecognizeResponse)
            assert finals([last]) == "w2 "
            assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (pb.RecognitionConfig(), wav(4)),
        (PCM, wav(4)),
        (PCM, wav(4, 8000)),
        (
            pb.RecognitionConfig(encoding=common_pb.FLAC),
            encoded(SILENCE, "flac", "flac", rate_hz=RATE),
        ),
        (pb.RecognitionConfig(encoding=common_pb.OGGOPUS), encoded(SILENCE, "ogg", "libopus")),
        (pb.RecognitionConfig(encoding=common_pb.MULAW, sample_rate_hertz=8000), bytes(4 * 8000)),
        (
            pb.RecognitionConfig(
                encoding=common_pb.LINEAR_PCM, sample_rate_hertz=48_000, audio_channel_count=2
            ),
            bytes(4 * 4 * 48_000),
        ),
    ],
    ids=["wav", "wav as pcm", "wav at another rate", "flac", "opus", "mulaw", "stereo"],
)
@pytest.mark.parametrize("cut", [7, 3200])
async def test_audio_of_every_kind_is_taken_cut_anywhere(
    config: pb.RecognitionConfig, data: bytes, cut: int
) -> None:
    head = [data[i : i + cut] for i in range(0, min(70, len(data)), cut)]
    rest = data[cut * len(head) :]
    blocks = [*head, *(rest[i : i + 3200] for i in range(0, len(rest), 3200))]
    async with riva_stub(1.0, 2.5) as (_, stub):
        streamed = await stream(stub, opening(config), blocks)
        recorded = await stub.Recognize(pb.RecognizeRequest(config=config, audio=data))
    assert finals(streamed) == "w0 w1 "
    assert "".join(r.alternatives[0].transcript for r in recorded.results) == "w0 w1 "


async def test_a_recording_comes_back_with_words_and_its_id() -> None:
    config = pb.RecognitionConfig(language_code="en-US", enable_word_time_offsets=True)
    request = pb.RecognizeRequest(config=config, audio=wav(4), id=common_pb.RequestId(value="mine"))
    async with riva_stub(1.0, 2.5) as (mesh, stub):
        response = await stub.Recognize(request)
        asked = mesh.asr.streams[0].open.config
        assert asked.language_code == "en"
    assert response.id.value == "mine"
    words = [w for result in response.results for w in result.alternatives[0].words]
    assert [(w.word, w.start_time, w.end_time) for w in words] == [
        ("w0", 1000, 1400),
        ("w1", 2500, 2900),
    ]


def diarized(config: pb.RecognitionConfig, max_speakers: int = 0) -> pb.RecognitionConfig:
    apart = pb.SpeakerDiarizationConfig(
        enable_speaker_diarization=True, max_speaker_count=max_speakers
    )
    wanted = pb.RecognitionConfig(diarization_config=apart)
    wanted.MergeFrom(config)
    return wanted


def speakers(
    results: Iterable[pb.StreamingRecognitionResult | pb.SpeechRecognitionResult],
) -> list[tuple[str, int]]:
    return [(w.word, w.speaker_tag) for r in results for w in r.alternatives[0].words]


@pytest.mark.row("R1")
async def test_words_have_the_tags_of_their_speakers() -> None:
    diarizer = FakeDiarizer([(1, 0, 2 * RATE), (2, 7 * RATE // 2, 6 * RATE)])
    said = [("w0", 1), ("w1", 1), ("w2", 2), ("w3", 2)]
    async with riva_stub(1.0, 1.5, 4.0, 4.5, diarizer=diarizer) as (_, stub):
        first = opening(diarized(PCM, 3), interim_results=True)
        responses = await stream(stub, first, audio(6))
        request = pb.RecognizeRequest(config=diarized(pb.RecognitionConfig(), 100), audio=wav(6))
        recorded = await stub.Recognize(request)
    results = [result for response in responses for result in response.results]
    assert speakers(result for result in results if result.is_final) == said
    assert speakers(result for result in results if not result.is_final) == []
    assert speakers(recorded.results) == said
    assert [asked.config.max_speakers for asked in diarizer.opens] == [3, 0]


async def test_without_a_diarizer_everybody_has_one_tag() -> None:
    async with riva_stub(1.0, 4.0) as (_, stub):
        responses = await stream(stub, opening(diarized(PCM)), audio(6))
    results = [result for response in responses for result in response.results]
    assert speakers(results) == [("w0", 1), ("w1", 1)]


async def test_boosted_phrases_are_hotwords() -> None:
    config = pb.RecognitionConfig()
    config.CopyFrom(PCM)
    config.speech_contexts.add(phrases=["Voxmesh"], boost=4)
    async with riva_stub(1.0) as (mesh, stub):
        await stream(stub, opening(config), audio(2))
        assert list(mesh.asr.streams[0].open.config.hotwords) == ["Voxmesh"]


async def test_the_models_are_those_of_the_pools() -> None:
    async with riva_stub() as (_, stub):
        every = await stub.GetRivaSpeechRecognitionConfig(CONFIG_REQUEST)
        assert {config.model_name for config in every.model_config} == {"fake"}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetRivaSpeechRecognitionConfig(
                pb.RivaSpeechRecognitionConfigRequest(model_name="x")
            )
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def with_model(name: str) -> pb.RecognitionConfig:
    config = pb.RecognitionConfig()
    config.CopyFrom(PCM)
    config.model = name
    return config


def in_language(code: str) -> pb.RecognitionConfig:
    config = pb.RecognitionConfig()
    config.CopyFrom(PCM)
    config.language_code = code
    return config


@pytest.mark.parametrize(
    "requests",
    [
        [heard(b"first")],
        [pb.StreamingRecognizeRequest()],
        [opening(), opening()],
        [opening(with_model("x"))],
        [opening(in_language("de-DE"))],
        [opening(in_language("tlh"))],
        [opening(pb.RecognitionConfig()), heard(b"no audio in any container" * 400)],
    ],
    ids=["audio first", "nothing", "again", "model", "language", "no language", "no audio"],
)
async def test_what_cannot_be_served_is_an_invalid_argument(
    requests: list[pb.StreamingRecognizeRequest],
) -> None:
    async with riva_stub() as (mesh, stub):
        error = await refusal(stub, *requests)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: mesh.gateway.open_sessions == 0)


async def test_a_recording_that_is_none_is_an_invalid_argument() -> None:
    async with riva_stub() as (mesh, stub):
        for data in (b"", b"no audio in any container that there is" * 20):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Recognize(pb.RecognizeRequest(audio=data))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert mesh.gateway.open_sessions == 0


async def test_a_client_that_says_nothing_for_long_has_finished() -> None:
    async with riva_stub(0.5, idle_s=0.3) as (mesh, stub):
        call = stub.StreamingRecognize()
        await call.write(opening())
        for block in audio(1):
            await call.write(heard(block))
        async with asyncio.timeout(10):
            assert finals([response async for response in call]) == "w0 "
            assert await call.code() is grpc.StatusCode.OK
        assert mesh.gateway.open_sessions == 0


async def test_a_client_that_leaves_holds_nothing() -> None:
    """C6."""
    async with riva_stub(1.0) as (mesh, stub):
        mesh.asr.faults.gate.clear()
        call = stub.StreamingRecognize()
        await call.write(opening())
        for block in audio(2):
            await call.write(heard(block))
        await until(lambda: mesh.gateway.open_sessions == 1)
        call.cancel()
        await until(lambda: mesh.gateway.open_sessions == 0 and mesh.asr.live == 0)


async def test_a_gateway_that_stops_ends_streams_with_their_last_words() -> None:
    """G1."""
    async with riva_stub(0.5) as (mesh, stub):
        call = stub.StreamingRecognize()
        await call.write(opening())
        for block in audio(1):
            await call.write(heard(block))
        await until(lambda: bool(mesh.asr.streams) and mesh.asr.streams[0].end >= RATE // 2)
        mesh.gateway.draining.set()
        mesh.gateway.closing.set()
        async with asyncio.timeout(10):
            assert finals([response async for response in call]) == "w0 "
        error = await refusal(stub, opening())
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_certain_comes_before_the_error_that_ends_a_stream() -> None:
    """F6."""
    async with riva_stub(1.0, 3.0, asr_patience_s=0.2) as (mesh, stub):
        mesh.asr.faults.always = {round(3.1 * RATE): DeviceError("broken")}
        call = stub.StreamingRecognize()
        await call.write(opening())
        responses = []
        for block in audio(6):
            await call.write(heard(block))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async with asyncio.timeout(20):
                while (response := await call.read()) is not grpc.aio.EOF:
                    assert isinstance(response, pb.StreamingRecognizeResponse)
                    responses.append(response)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert finals(responses) == "w0 "


async def test_a_stage_that_is_lost_costs_no_word() -> None:
    """F1."""
    async with riva_stub(*range(1, 8)) as (mesh, stub):
        mesh.asr.faults.once = {round(4.2 * RATE): DeviceError("lost")}
        responses = await stream(stub, opening(), audio(9))
    assert finals(responses).split() == [f"w{i}" for i in range(7)]


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_a_recording_without_a_key_is_not_even_read(key: str) -> None:
    async with gateway_channel(keys={"alice": "a"}) as (_, channel):
        call = recognize_slowly(channel, (("authorization", f"Bearer {key}"),) if key else ())
        async with asyncio.timeout(10):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_recording_for_which_there_is_no_room_is_not_even_read() -> None:
    """O1."""
    async with gateway_channel(keys={"alice": "a"}, max_sessions=1) as (mesh, channel):
        async with mesh.gateway.session(session_config()):
            call = recognize_slowly(channel, (("authorization", "Bearer a"), ("function-id", "x")))
            async with asyncio.timeout(10):
                assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = rpc.RivaSpeechRecognitionStub(channel)
        request = pb.RecognizeRequest(audio=wav(1))
        await stub.Recognize(request, metadata=(("authorization", "Bearer a"),))


def recognize_slowly(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> Any:
    """A call of ``Recognize`` whose message never comes."""
    send = channel.stream_unary(
        "/nvidia.riva.asr.RivaSpeechRecognition/Recognize",
        request_serializer=pb.RecognizeRequest.SerializeToString,
        response_deserializer=pb.RecognizeResponse.FromString,
    )
    return send(metadata=metadata)
