"""``GatewayService.Converse`` over a real channel."""

import asyncio
import io
import wave

import grpc
import pytest
from google.rpc import error_details_pb2

from services.common.errors import DeviceError
from tests.gateway.conversing import (
    FINISH,
    PCM,
    audio,
    converse,
    details_of,
    gateway_stub,
    kinds,
    opened,
    read,
    refusal,
    words_of,
)
from tests.gateway.fakes import RATE, FakeDiarizer, FakeTranslator
from tests.settings.serving import until
from voxmesh.gateway.v1 import gateway_pb2 as pb


async def test_words_are_sent_once_in_order_and_the_end_is_said() -> None:
    """W1, W2."""
    async with gateway_stub(1.0, 2.5, 9.0) as (mesh, stub):
        responses = await converse(stub, PCM, audio(11))
        assert words_of(responses) == [word.text for word in mesh.asr.words]
    assert kinds(responses)[0] == "opened"
    assert responses[0].opened.model == "fake"
    assert responses[0].opened.session_id
    assert kinds(responses)[-1] == "finished"
    assert kinds(responses).count("finished") == 1
    captions = [r.captions for r in responses if r.WhichOneof("event") == "captions"]
    assert [c.seq for c in captions] == list(range(1, len(captions) + 1))
    assert captions[-1].tail == ""
    word = captions[-1].words[-1]
    assert word.start_offset.ToTimedelta().total_seconds() == 9.0
    assert word.end_offset.ToTimedelta().total_seconds() == pytest.approx(9.4)


@pytest.mark.parametrize(
    ("opening", "sample_bytes", "rate"),
    [
        (pb.Open(encoding=pb.ENCODING_LINEAR16, sample_rate_hz=48_000, channels=2), 4, 48_000),
        (pb.Open(encoding=pb.ENCODING_FLOAT32, sample_rate_hz=44_100), 4, 44_100),
        (pb.Open(encoding=pb.ENCODING_MULAW, sample_rate_hz=8000), 1, 8000),
    ],
)
async def test_raw_audio_of_other_kinds_is_converted(
    opening: pb.Open, sample_bytes: int, rate: int
) -> None:
    async with gateway_stub(1.0, 2.5) as (_, stub):
        responses = await converse(stub, opening, audio(4, sample_bytes=sample_bytes, rate=rate))
    assert words_of(responses) == [" w0", " w1"]


async def test_a_container_says_itself_what_it_is() -> None:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * 4 * RATE))
    async with gateway_stub(1.0, 2.5) as (_, stub):
        responses = await converse(stub, pb.Open(), [data.getvalue()])
    assert words_of(responses) == [" w0", " w1"]


async def test_a_flush_is_answered_when_everything_before_it_was_sent() -> None:
    async with gateway_stub(1.0, 1.6, 4.0) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=PCM))
        for block in audio(2.1):
            await call.write(pb.ConverseRequest(audio=block))
        await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=7)))
        async with asyncio.timeout(10):
            before = await read(call, until="flushed")
            assert words_of(before) == [" w0", " w1"]
            assert before[-1].flushed.flush_id == 7
            for block in audio(3):
                await call.write(pb.ConverseRequest(audio=block))
            await call.write(pb.ConverseRequest(finish=pb.Finish()))
            after = await read(call, until="finished")
    assert words_of(after) == [" w2"]
    assert kinds(after)[-1] == "finished"


async def test_trouble_behind_the_gateway_is_told_and_costs_no_word() -> None:
    """F1, F2."""
    async with gateway_stub(*range(1, 8)) as (mesh, stub):
        mesh.asr.faults.once = {round(4.2 * RATE): DeviceError("lost")}
        responses = await converse(stub, PCM, audio(9))
        assert words_of(responses) == [word.text for word in mesh.asr.words]
    notices = [r.notice for r in responses if r.WhichOneof("event") == "notice"]
    assert [(n.stage, n.code, n.retryable) for n in notices] == [
        ("asr", "DEGRADED", True),
        ("asr", "RECOVERED", True),
    ]


async def test_silence_is_no_news() -> None:
    async with gateway_stub() as (_, stub):
        responses = await converse(stub, PCM, audio(60))
    assert set(kinds(responses)) <= {"opened", "lag", "finished"}
    assert kinds(responses).count("lag") < 10


@pytest.mark.parametrize(
    ("opening", "code", "reason"),
    [
        (pb.Open(encoding=pb.ENCODING_LINEAR16, model="x"), "NOT_FOUND", "NOT_FOUND"),
        (
            pb.Open(encoding=pb.ENCODING_LINEAR16, language_code="de"),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            pb.Open(encoding=pb.ENCODING_LINEAR16, channels=9),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            pb.Open(encoding=pb.ENCODING_LINEAR16, task=pb.TASK_TRANSLATE),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (pb.Open(policy=7), "INVALID_ARGUMENT", "INVALID_REQUEST"),  # type: ignore[arg-type]  # on purpose
        (pb.Open(encoding=99), "INVALID_ARGUMENT", "INVALID_REQUEST"),  # type: ignore[arg-type]  # on purpose
    ],
)
async def test_what_cannot_be_served_is_a_status(opening: pb.Open, code: str, reason: str) -> None:
    async with gateway_stub() as (_, stub):
        error = await refusal(stub, pb.ConverseRequest(open=opening))
    assert error.code().name == code
    info = error_details_pb2.ErrorInfo()
    assert details_of(error)[0].Unpack(info)
    assert info.reason == reason


async def test_bytes_that_are_no_container_are_refused() -> None:
    async with gateway_stub() as (_, stub):
        error = await refusal(
            stub,
            pb.ConverseRequest(open=pb.Open()),
            pb.ConverseRequest(audio=b"no audio in any container that there is" * 20),
            pb.ConverseRequest(finish=pb.Finish()),
        )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "requests",
    [
        [pb.ConverseRequest(audio=b"\0\0")],
        [pb.ConverseRequest(open=PCM), pb.ConverseRequest(open=PCM)],
        [pb.ConverseRequest(open=PCM), pb.ConverseRequest()],
    ],
)
async def test_messages_out_of_place_are_refused(requests: list[pb.ConverseRequest]) -> None:
    async with gateway_stub() as (_, stub):
        error = await refusal(stub, *requests)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("metadata", "admitted"),
    [
        ((), False),
        ((("authorization", "Bearer wrong"),), False),
        ((("authorization", "Bearer secret"),), True),
        ((("authorization", "secret"),), True),
    ],
)
async def test_who_may_converse(metadata: tuple[tuple[str, str], ...], admitted: bool) -> None:
    async with gateway_stub(keys={"alice": "secret"}) as (_, stub):
        if admitted:
            responses = await converse(stub, PCM, audio(1), metadata=metadata)
            assert kinds(responses)[-1] == "finished"
            return
        error = await refusal(stub, pb.ConverseRequest(open=PCM), metadata=metadata)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_that_says_nothing_more_is_taken_to_have_finished() -> None:
    async with gateway_stub(0.5, idle_s=0.3) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=PCM))
        await call.write(pb.ConverseRequest(audio=bytes(2 * RATE * 2)))
        async with asyncio.timeout(10):
            responses = await read(call, until="finished")
    assert words_of(responses) == [" w0"]
    assert kinds(responses)[-1] == "finished"


async def test_a_stopping_gateway_brings_the_last_words_home() -> None:
    """G1."""
    async with gateway_stub(0.5) as (mesh, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=PCM))
        await call.write(pb.ConverseRequest(audio=bytes(2 * RATE * 2)))
        await until(lambda: mesh.vad.heard_sample == 2 * RATE)
        drain = asyncio.create_task(mesh.gateway.drain(1.0))
        async with asyncio.timeout(10):
            responses = await read(call, until="finished")
        await drain
        error = await refusal(stub, pb.ConverseRequest(open=PCM))
    assert words_of(responses) == [" w0"]
    [notice] = [each.notice for each in responses if each.HasField("notice")]
    assert (notice.stage, notice.code) == ("gateway", "DRAINING")
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_clients_that_leave_take_everything_with_them() -> None:
    async with gateway_stub(0.2) as (mesh, stub):
        for number in range(40):
            call = stub.Converse()
            await call.write(pb.ConverseRequest(open=PCM))
            for _ in range(number % 5):
                await call.write(pb.ConverseRequest(audio=bytes(6400)))
            if number % 3:
                await call.read()
            call.cancel()
        async with asyncio.timeout(10):
            while mesh.asr.live or mesh.vad.live:  # noqa: ASYNC110 -- nobody says when a stream is gone
                await asyncio.sleep(0.05)
        assert kinds(await converse(stub, PCM, audio(1)))[-1] == "finished"


async def test_a_client_that_sends_too_many_messages_is_read_more_slowly_and_loses_none() -> None:
    """O2."""
    async with gateway_stub(0.5, max_messages_per_s=1) as (mesh, stub):
        call, told = await opened(stub)
        live = mesh.gateway.resumption.find(told.resume_token, "")
        for _ in range(2):
            await call.write(pb.ConverseRequest(audio=bytes(RATE * 2)))
        await asyncio.sleep(0.3)  # for both to be taken
        assert live.received_bytes == RATE * 2
        await call.write(FINISH)
        answers = await read(call, until="finished")
    assert words_of(answers) == [" w0"]
    assert live.received_bytes == 2 * RATE * 2


TURNS = [(1, 0, 2 * RATE), (2, 2 * RATE, 5 * RATE)]


def spoken(responses: list[pb.ConverseResponse]) -> list[tuple[str, int, str]]:
    return [
        (word.text, word.speaker, word.speaker_name)
        for response in responses
        for word in response.captions.words
    ]


async def test_words_have_their_speakers_and_the_names_that_the_client_gives_them() -> None:
    enrolled = [pb.EnrolledSpeaker(name="Ada", speech=bytes(2 * RATE))]
    opening = pb.Open(
        encoding=pb.ENCODING_LINEAR16, diarization=pb.Diarization(max_speakers=4, enrolled=enrolled)
    )
    diarizer = FakeDiarizer(TURNS)
    async with gateway_stub(0.5, 1.0, 3.0, 4.2, diarizer=diarizer) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=opening))
        for block in audio(3.5):
            await call.write(pb.ConverseRequest(audio=block))
        await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=1)))
        async with asyncio.timeout(10):
            before = await read(call, until="flushed")
            name = pb.NameSpeaker(speaker=2, name="Grace")
            await call.write(pb.ConverseRequest(name_speaker=name))
            for block in audio(1.5):
                await call.write(pb.ConverseRequest(audio=block))
            await call.write(FINISH)
            after = await read(call, until="finished")
    assert spoken(before) == [(" w0", 1, "Ada"), (" w1", 1, "Ada"), (" w2", 2, "")]
    assert spoken(after) == [(" w3", 2, "Grace")]
    assert diarizer.opens[0].config.max_speakers == 4
    assert list(diarizer.opens[0].config.enrolled) == [bytes(2 * RATE)]


async def test_a_resumed_connection_is_told_the_speakers_of_the_words_it_lacks() -> None:
    opening = pb.Open(
        encoding=pb.ENCODING_LINEAR16, resumable=True, diarization=pb.Diarization(num_speakers=2)
    )
    async with gateway_stub(0.5, 3.0, diarizer=FakeDiarizer(TURNS)) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=opening))
        async with asyncio.timeout(10):
            token = (await read(call, until="opened"))[0].opened.resume_token
            await call.write(pb.ConverseRequest(name_speaker=pb.NameSpeaker(speaker=1, name="Ada")))
            for block in audio(5):
                await call.write(pb.ConverseRequest(audio=block))
            await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=1)))
            await read(call, until="flushed")
            call.cancel()
            again = stub.Converse()
            await again.write(pb.ConverseRequest(resume=pb.Resume(token=token)))
            await again.write(FINISH)
            responses = await read(again, until="finished")
    assert spoken(responses) == [(" w0", 1, "Ada"), (" w1", 2, "")]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (pb.Diarization(max_speakers=61), "diarization.max_speakers is 61, not 0 to 60"),
        (pb.Diarization(num_speakers=-1), "diarization.num_speakers is -1, not 0 to 60"),
        (
            pb.Diarization(enrolled=[pb.EnrolledSpeaker(speech=bytes(100))]),
            "speaker 1 has 100 bytes of speech, not 1 to 30 s of 16 kHz s16le",
        ),
        (
            pb.Diarization(enrolled=[pb.EnrolledSpeaker(name="x" * 101, speech=bytes(2 * RATE))]),
            "a speaker's name has at most 100 characters",
        ),
    ],
)
async def test_what_cannot_be_known_of_speakers_is_refused(
    wanted: pb.Diarization, complaint: str
) -> None:
    opening = pb.Open(encoding=pb.ENCODING_LINEAR16, diarization=wanted)
    async with gateway_stub(0.5, diarizer=FakeDiarizer()) as (_, stub):
        refused = await refusal(stub, pb.ConverseRequest(open=opening))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in (refused.details() or "")


def pieces(responses: list[pb.ConverseResponse], target: str) -> list[str]:
    return [
        piece.text
        for response in responses
        if response.translated.language_code == target
        for piece in response.translated.pieces
    ]


async def test_what_is_said_is_translated_into_the_languages_that_are_wanted_now() -> None:
    opening = pb.Open(
        encoding=pb.ENCODING_LINEAR16,
        language_code="en",
        translate_into=pb.TranslateInto(language_codes=["pt", "de"]),
    )
    async with gateway_stub(0.5, 1.0, 3.0, 4.2, translator=FakeTranslator()) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=opening))
        for block in audio(3.5):
            await call.write(pb.ConverseRequest(audio=block))
        await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=1)))
        async with asyncio.timeout(20):
            before = await read(call, until="flushed")
            wanted = pb.TranslateInto(language_codes=["de"])
            await call.write(pb.ConverseRequest(translate_into=wanted))
            for block in audio(1.5):
                await call.write(pb.ConverseRequest(audio=block))
            await call.write(FINISH)
            after = await read(call, until="finished")
    assert "".join(pieces(before, "pt")) == "".join(pieces(before, "de")) == " W0 W1 W2"
    assert pieces(after, "pt") == []
    assert pieces(after, "de") == [" W3"]
    spans = [
        (piece.start_offset.ToMilliseconds(), piece.end_offset.ToMilliseconds())
        for response in after
        for piece in response.translated.pieces
    ]
    assert spans == [(4200, 4600)]


async def test_trouble_with_a_translation_names_its_language() -> None:
    async with gateway_stub(0.5, 1.0, translator=FakeTranslator()) as (_, stub):
        call = stub.Converse()
        opening = pb.Open(encoding=pb.ENCODING_LINEAR16, language_code="en")
        await call.write(pb.ConverseRequest(open=opening))
        wanted = pb.TranslateInto(language_codes=["xx"])
        await call.write(pb.ConverseRequest(translate_into=wanted))
        for block in audio(3):
            await call.write(pb.ConverseRequest(audio=block))
        await call.write(FINISH)
        async with asyncio.timeout(20):
            responses = await read(call, until="finished")
    [notice] = [r.notice for r in responses if r.WhichOneof("event") == "notice"]
    assert (notice.stage, notice.target_language_code) == ("translator", "xx")


async def test_a_resumed_connection_is_told_the_pieces_that_it_lacks() -> None:
    opening = pb.Open(
        encoding=pb.ENCODING_LINEAR16,
        language_code="en",
        resumable=True,
        translate_into=pb.TranslateInto(language_codes=["pt"]),
    )
    async with gateway_stub(0.5, 3.5, translator=FakeTranslator()) as (_, stub):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(open=opening))
        async with asyncio.timeout(20):
            token = (await read(call, until="opened"))[0].opened.resume_token
            for number in (1, 2):
                for block in audio(2.5):
                    await call.write(pb.ConverseRequest(audio=block))
                await call.write(pb.ConverseRequest(flush=pb.Flush(flush_id=number)))
                await read(call, until="flushed")
            call.cancel()
            for held, complaint in (("pt", "has no 3 pieces"), ("de", "has no 3 pieces")):
                resume = pb.Resume(token=token, num_pieces={held: 3})
                refused = await refusal(stub, pb.ConverseRequest(resume=resume))
                assert complaint in (refused.details() or "")
            again = stub.Converse()
            resume = pb.Resume(token=token, num_pieces={"pt": 1})
            await again.write(pb.ConverseRequest(resume=resume))
            await again.write(FINISH)
            responses = await read(again, until="finished")
    assert pieces(responses, "pt") == [" W1"]
    assert [r.translated.first_piece for r in responses if r.translated.pieces] == [1]


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (["xx"], "there are pt, de"),
        ([""], "one of 0 characters, not 1 to 64"),
        (["x" * 65], "one of 65 characters, not 1 to 64"),
        ([f"l{number}" for number in range(9)], "at most 8 translations"),
    ],
)
async def test_languages_that_cannot_be_had_are_refused(codes: list[str], complaint: str) -> None:
    opening = pb.Open(
        encoding=pb.ENCODING_LINEAR16,
        language_code="en",
        translate_into=pb.TranslateInto(language_codes=codes),
    )
    async with gateway_stub(0.5, translator=FakeTranslator()) as (_, stub):
        refused = await refusal(stub, pb.ConverseRequest(open=opening))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in (refused.details() or "")
