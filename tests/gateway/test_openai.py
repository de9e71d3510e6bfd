import asyncio
import json
import re
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from services.common.errors import DeviceError
from services.common.words import Word
from services.gateway.protocols import openai
from services.gateway.protocols.openai_view import Spoken, json_body, verbose_body
from services.gateway.transcript import Decoding
from tests.gateway.encode import encoded, speech
from tests.gateway.fakes import (
    FakeAsr,
    FakeDiarizer,
    FakeVad,
    Mesh,
    running,
    served,
    spans_of,
)
from voxmesh.asr.v1 import asr_pb2

RATE = 16_000
BOTH = (asr_pb2.TASK_TRANSCRIBE, asr_pb2.TASK_TRANSLATE)
WORDS = [
    Word(" Hello", 8000, 14000, token_ids=(2425,)),
    Word(" there.", 14500, 22000, token_ids=(456, 13)),
    Word(" How", 40000, 44000, token_ids=(1012,)),
    Word(" are", 44500, 48000, token_ids=(366,)),
    Word(" you?", 48500, 54000, token_ids=(291, 30)),
]
TEXT = "Hello there. How are you?"
DURATION_S = 4.2


def wav(duration_s: float = DURATION_S, *, claimed: int | None = None) -> bytes:
    pcm = bytes(2 * round(duration_s * RATE))
    size = len(pcm) if claimed is None else claimed
    fmt = struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = struct.pack("<I", size)
    return b"RIFF" + data + b"WAVEfmt " + fmt + b"data" + data + pcm


class Client(httpx.AsyncClient):
    """What tests ask of a gateway."""

    async def transcribe(
        self, file: bytes | None = None, *, path: str = "/v1/audio/transcriptions", **fields: Any
    ) -> httpx.Response:
        data = {"model": "whisper-1"} | fields
        upload = ("audio.wav", wav() if file is None else file, "audio/x-wav")
        return await self.post(path, data=data, files={"file": upload})


@asynccontextmanager
async def serving(
    words: Sequence[Word] = WORDS,
    *,
    asr: FakeAsr | None = None,
    diarizer: FakeDiarizer | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Client, Mesh]]:
    fake = asr or FakeAsr(words)
    async with (
        running(FakeVad(spans_of(words)), fake, diarizer, **settings) as mesh,
        served(mesh.gateway) as port,
        Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client,
    ):
        yield client, mesh


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(500):
        if happened():
            return
        await asyncio.sleep(0.01)  # for another task or process
    pytest.fail("it did not happen within 5 s")


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("gateway.decode")]


def refusal(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    return dict(body["error"])


async def test_json_is_text_and_usage() -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(language="en")
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json() == {
        "text": TEXT,
        "usage": {"type": "duration", "seconds": 5.0},
        "languages": [{"code": "en"}],
    }


@pytest.mark.trap(8)
@pytest.mark.parametrize(
    ("response_format", "content_type", "body"),
    [
        ("text", "text/plain; charset=utf-8", f"{TEXT}\n"),
        (
            "srt",
            "text/plain; charset=utf-8",
            "1\n00:00:00,500 --> 00:00:01,500\nHello there.\n\n"
            "2\n00:00:02,500 --> 00:00:03,500\nHow are you?\n\n",
        ),
        (
            "vtt",
            "text/vtt; charset=utf-8",
            "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nHello there.\n\n"
            "00:00:02.500 --> 00:00:03.500\nHow are you?\n\n",
        ),
    ],
)
async def test_text_and_subtitles_are_no_json(
    response_format: str, content_type: str, body: str
) -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(response_format=response_format)
    assert answer.headers["content-type"] == content_type
    assert answer.text == body


SEGMENT_KEYS = {
    *("id", "seek", "start", "end", "text", "tokens"),
    *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
}


@pytest.mark.trap(8)
async def test_verbose_json_has_every_field_with_its_type() -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(response_format="verbose_json", language="fr-CA")
    body = answer.json()
    assert set(body) == {"task", "language", "duration", "text", "segments", "usage"}
    assert (body["task"], body["language"], body["text"]) == ("transcribe", "french", TEXT)
    assert body["duration"] == DURATION_S
    assert body["usage"] == {"type": "duration", "seconds": 5.0}
    assert [segment["text"] for segment in body["segments"]] == ["Hello there.", " How are you?"]
    for number, segment in enumerate(body["segments"]):
        assert set(segment) == SEGMENT_KEYS
        assert segment["id"] == number
        assert isinstance(segment["seek"], int)
        floats = SEGMENT_KEYS - {"id", "seek", "text", "tokens"}
        assert all(isinstance(segment[key], float) for key in floats)
    assert [(s["start"], s["end"]) for s in body["segments"]] == [(0.5, 1.375), (2.5, 3.375)]


@pytest.mark.parametrize(
    "granularities",
    [
        {"timestamp_granularities[]": ["word", "segment"]},
        {"timestamp_granularities[]": "word"},
        {"timestamp_granularities": "word"},
        {"timestamp_granularities": '["segment", "word"]'},
    ],
)
async def test_words_come_when_they_are_asked_for(granularities: dict[str, Any]) -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(response_format="verbose_json", **granularities)
    words = answer.json()["words"]
    assert [word["word"] for word in words] == ["Hello", "there.", "How", "are", "you?"]
    assert (words[0]["start"], words[0]["end"]) == (0.5, 0.875)
    assert len(answer.json()["segments"]) == 2


def test_segments_add_up_to_the_text_and_say_how_they_were_decoded() -> None:
    spoken = Spoken(
        WORDS, [Decoding(0, 3, -0.2, 0.1, 0.0), Decoding(3, 2, -0.7, 0.6, 0.4)], "en", DURATION_S
    )
    body = verbose_body(spoken, task="transcribe", with_words=False, temperature=0.0)
    first, second = body["segments"]
    assert first["text"] + second["text"] == body["text"] == TEXT
    assert first["tokens"] == [2425, 456, 13]
    assert second["tokens"] == [1012, 366, 291, 30]
    assert (first["avg_logprob"], first["no_speech_prob"]) == (-0.2, 0.1)
    assert (second["avg_logprob"], second["no_speech_prob"]) == (-0.4, 0.3)
    assert second["temperature"] == 0.0
    assert (first["seek"], second["seek"]) == (50, 50)
    text = first["text"].encode()
    assert first["compression_ratio"] == round(len(text) / len(zlib.compress(text)), 6)


def test_times_lie_within_the_file() -> None:
    spoken = Spoken([Word(" Late", 60000, 90000)], [], "", 4.0)
    body = verbose_body(spoken, task="transcribe", with_words=True, temperature=0.3)
    assert (body["segments"][0]["start"], body["segments"][0]["end"]) == (3.75, 4.0)
    assert body["segments"][0]["temperature"] == 0.3
    assert body["words"] == [{"word": "Late", "start": 3.75, "end": 4.0}]


def test_silence_is_an_empty_text() -> None:
    spoken = Spoken([], [], "", 4.0)
    assert json_body(spoken) == {"text": "", "usage": {"type": "duration", "seconds": 4.0}}
    body = verbose_body(spoken, task="transcribe", with_words=True, temperature=0)
    assert (body["text"], body["segments"], body["words"]) == ("", [], [])


async def test_what_the_client_asks_for_reaches_the_recogniser() -> None:
    async with serving() as (client, mesh):
        await client.transcribe(language="French", prompt="names", temperature="0.5")
        config = mesh.asr.streams[0].open.config
    assert (config.language_code, config.prompt, config.temperature) == ("fr", "names", 0.5)
    assert (config.pace, config.task) == (asr_pb2.PACE_FILE, asr_pb2.TASK_TRANSCRIBE)


@pytest.mark.parametrize(
    "fields",
    [
        {"language": ""},
        {"language": "auto"},
        {"model": ""},
        {"model": "gpt-4o-mini-transcribe-2025-12-15"},
        {"model": "fake"},
        {"stream": "false"},
        {"response_format": ""},
        {"temperature": ""},
        {"stream": "false", "hotwords": "x", "vad_filter": "true", "user": "me"},
        {"chunking_strategy": "auto", "languages[]": ["en", "fr"], "keywords[]": "voxmesh"},
        {"chunking_strategy[type]": "server_vad", "known_speaker_names[]": ["A", "B"]},
        {"model": "gpt-4o-transcribe-diarize", "known_speaker_references[]": "none"},
    ],
)
async def test_what_clients_send_besides_does_no_harm(fields: dict[str, Any]) -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(**fields)
    assert answer.json()["text"] == TEXT


async def test_keywords_and_the_only_candidate_language_reach_the_recogniser() -> None:
    async with serving() as (client, mesh):
        fields: dict[str, Any] = {"keywords[]": ["voxmesh", "gRPC"], "languages[]": "fr"}
        await client.transcribe(**fields)
        config = mesh.asr.streams[0].open.config
    assert list(config.hotwords) == ["voxmesh", "gRPC"]
    assert config.language_code == "fr"


def test_probabilities_come_when_they_are_asked_for() -> None:
    words = [replace(word, probability=0.5) for word in WORDS]
    body = json_body(Spoken(words, [], "en", DURATION_S), with_probabilities=True)
    first, *rest = body["logprobs"]
    assert first == {"token": " Hello", "logprob": -0.693147, "bytes": list(b" Hello")}
    assert len(rest) == 4


def events_of(body: str) -> list[dict[str, Any]]:
    frames = [frame for frame in body.split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames)
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize("response_format", ["json", "text"])
async def test_a_streamed_text_only_grows(response_format: str) -> None:
    async with serving() as (client, _):
        fields: dict[str, Any] = {"include[]": "logprobs", "response_format": response_format}
        answer = await client.transcribe(stream="true", **fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    *deltas, done = events_of(answer.text)
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == TEXT
    assert [word for delta in deltas for word in delta["logprobs"]] == done["logprobs"]
    assert done["type"] == "transcript.text.done"


async def test_nothing_said_is_an_empty_stream() -> None:
    async with serving([]) as (client, _):
        answer = await client.transcribe(stream="true")
    assert events_of(answer.text) == [{"type": "transcript.text.done", "text": ""}]


async def test_subtitles_come_as_a_whole_even_if_a_stream_is_asked_for() -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(stream="true", response_format="srt")
    assert answer.text.startswith("1\n00:00:00,500 --> ")


async def test_an_error_amid_a_stream_is_its_last_event() -> None:
    asr = FakeAsr(WORDS)
    asr.faults.always[60000] = DeviceError("the model failed")
    async with serving(asr=asr, asr_patience_s=0.2, open_timeout_s=0.5) as (client, _):
        answer = await client.transcribe(stream="true")
    *deltas, failure = events_of(answer.text)
    assert answer.status_code == 200
    assert "".join(delta["delta"] for delta in deltas) == "Hello there."
    assert failure["error"]["type"] == "server_error"


async def test_what_is_wrong_before_a_stream_is_a_status() -> None:
    async with serving(max_sessions=1) as (client, mesh):
        assert (await client.transcribe(b"no audio", stream="true")).status_code == 400
        mesh.asr.faults.gate.clear()
        first = asyncio.create_task(client.transcribe(stream="true"), name="test.first")
        await until(lambda: len(mesh.asr.streams) > 1)
        assert (await client.transcribe(stream="true")).status_code == 429
        mesh.asr.faults.gate.set()
        assert events_of((await first).text)[-1]["text"] == TEXT


async def test_a_client_that_leaves_a_stream_takes_its_work_with_it() -> None:
    async with serving() as (client, mesh):
        mesh.asr.faults.gate.clear()
        leaving = asyncio.create_task(client.transcribe(stream="true"), name="test.leaving")
        await until(lambda: bool(mesh.asr.live))
        leaving.cancel()
        await until(lambda: not mesh.asr.live and not mesh.gateway.open_sessions)


async def test_the_path_without_a_version_and_a_nameless_blob_are_served() -> None:
    async with serving() as (client, _):
        answer = await client.post(
            "/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("blob", wav(), "application/octet-stream")},
        )
    assert answer.json()["text"] == TEXT


async def test_translation_is_english_and_says_so() -> None:
    async with serving(asr=FakeAsr(WORDS, tasks=BOTH)) as (client, mesh):
        path = "/v1/audio/translations"
        answer = await client.transcribe(path=path, response_format="verbose_json", language="fr")
        assert mesh.asr.streams[0].open.config.task == asr_pb2.TASK_TRANSLATE
    assert (answer.json()["task"], answer.json()["language"]) == ("translate", "english")


async def test_a_model_that_cannot_translate_never_transcribes_instead() -> None:
    async with serving() as (client, mesh):
        answer = await client.transcribe(path="/v1/audio/translations")
        assert answer.status_code == 400
        assert refusal(answer)["code"] == "unsupported_model"
        assert not mesh.asr.streams


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"response_format": "xml"}, 400, "response_format", "invalid_value"),
        ({"stream": "maybe"}, 400, "stream", "invalid_value"),
        ({"temperature": "1.5"}, 400, "temperature", "invalid_value"),
        ({"temperature": "warm"}, 400, "temperature", "invalid_value"),
        ({"temperature": "nan"}, 400, "temperature", "invalid_value"),
        ({"timestamp_granularities[]": "syllable"}, 400, "timestamp_granularities", None),
        ({"language": "klingon"}, 400, "language", "invalid_language_format"),
        ({"language": "de"}, 400, "language", "unsupported_language"),
        ({"model": "whisper-9"}, 404, "model", "model_not_found"),
    ],
)
async def test_a_wrong_parameter_is_named(
    fields: dict[str, Any], status: int, param: str, code: str | None
) -> None:
    async with serving() as (client, mesh):
        answer = await client.transcribe(**fields)
        assert answer.status_code == status
        error = refusal(answer)
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert code is None or error["code"] == code
        assert not mesh.asr.streams
        assert (await client.transcribe()).json()["text"] == TEXT


BAD_FILES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "empty"),
    "text": (b"This is not audio. " * 999, 400, "not audio"),
    "a playlist": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", 400, "not audio"),
    "a header alone": (wav(0), 400, "nothing of the input could be decoded"),
    "a cut header": (wav()[:30], 400, "cannot be decoded"),
    "noise after a true beginning": (
        b"fLaC" + np.random.default_rng(1).bytes(9999),
        400,
        "cannot be decoded",
    ),
    "too long by its header": (wav(1, claimed=2 * RATE * 700), 413, "limited to 20 s"),
    "too long": (wav(21, claimed=0), 413, "limited to 20 s"),
    "too large": (wav(80), 413, "limited to 2000000 bytes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_a_bad_file_is_refused_with_its_reason(name: str) -> None:
    file, status, reason = BAD_FILES[name]
    async with serving(max_file_s=20, max_upload_bytes=2_000_000) as (client, _):
        answer = await client.transcribe(file)
        assert answer.status_code == status
        error = refusal(answer)
        assert reason in error["message"]
        assert (error["type"], error["param"]) == ("invalid_request_error", "file")
        assert (await client.transcribe()).json()["text"] == TEXT


async def test_a_missing_file_is_named() -> None:
    async with serving() as (client, _):
        answer = await client.post("/v1/audio/transcriptions", files={"audio": wav()})
        assert refusal(answer)["param"] == "file"
        answer = await client.post(
            "/v1/audio/transcriptions", data={"file": "hello"}, files={"other": b"x"}
        )
        assert "not as a file" in refusal(answer)["message"]


async def test_a_file_cut_off_is_transcribed_as_far_as_it_goes() -> None:
    async with serving() as (client, _):
        answer = await client.transcribe(wav()[:-60000], response_format="verbose_json")
    assert answer.json()["duration"] == DURATION_S - 1.875
    assert answer.json()["text"] == "Hello there."


async def test_a_draining_gateway_asks_to_come_again() -> None:
    async with serving() as (client, mesh):
        await mesh.gateway.drain(0)
        answer = await client.transcribe()
    assert answer.status_code == 503
    assert refusal(answer)["type"] == "server_error"
    assert "retry-after" in answer.headers
    assert "x-should-retry" not in answer.headers


async def test_a_recogniser_that_fails_for_good_is_not_worth_a_retry() -> None:
    asr = FakeAsr(WORDS)
    asr.faults.always[20000] = DeviceError("the model failed")
    async with serving(asr=asr, asr_patience_s=0.2, open_timeout_s=0.5) as (client, _):
        answer = await client.transcribe()
    assert answer.status_code == 503
    assert refusal(answer)["type"] == "server_error"
    assert answer.headers["x-should-retry"] == "false"


async def test_a_bug_is_an_internal_error_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    async with serving() as (client, _):
        monkeypatch.setattr(openai, "_response", fail)
        answer = await client.transcribe()
        monkeypatch.undo()
        assert (await client.transcribe()).status_code == 200
    assert answer.status_code == 500
    assert refusal(answer)["message"] == "internal error"
    assert answer.headers["x-should-retry"] == "false"
    output = capfd.readouterr()
    assert (output.out + output.err).count("RuntimeError: secret detail") == 1


async def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    async with serving() as (client, mesh):
        mesh.asr.faults.gate.clear()
        leaving = asyncio.create_task(client.transcribe(), name="test.leaving")
        await until(lambda: bool(mesh.asr.streams))
        leaving.cancel()
        await until(lambda: not mesh.asr.live and not decoding_threads())
        mesh.asr.faults.gate.set()
        assert (await client.transcribe()).json()["text"] == TEXT


async def test_real_speech_in_opus_reaches_the_recogniser_whole() -> None:
    samples = speech()[: 4 * RATE]
    file = encoded(samples, "webm", "libopus")
    async with serving() as (client, mesh):
        answer = await client.transcribe(file, response_format="verbose_json")
        assert mesh.asr.streams[0].end >= 54000
    assert answer.json()["duration"] == 4.0


@pytest.mark.trap(12)
async def test_models_are_listed_for_both_vendors() -> None:
    async with serving() as (client, _):
        answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert answer["tts"] == []
    assert answer["data"] == answer["stt"]
    (model,) = answer["data"]
    assert (model["id"], model["object"], model["name"]) == ("fake", "model", "fake")
    assert isinstance(model["created"], int)
    assert model["languages"] == ["en", "fr"]
    assert {"owned_by", "canonical_name", "architecture", "version", "uuid"} <= set(model)
    assert all(model[key] is True for key in ("batch", "streaming", "formatted_output"))


@pytest.mark.parametrize(
    ("name", "status"), [("fake", 200), ("whisper-1", 200), ("a/b", 404), ("", 404)]
)
async def test_one_model_is_described_by_any_of_its_names(name: str, status: int) -> None:
    async with serving() as (client, _):
        answer = await client.get(f"/v1/models/{name}")
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["id"] == name
    else:
        assert refusal(answer)["code"] == "model_not_found"
