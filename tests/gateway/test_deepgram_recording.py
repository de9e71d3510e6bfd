"""``POST /v1/listen``: recordings in Deepgram's form."""

import asyncio
import hashlib
import io
import re
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.datastructures import QueryParams

from services.common.errors import DeviceError
from services.common.words import Word
from services.gateway.protocols.deepgram_query import read_wish
from services.gateway.protocols.deepgram_recording import Heard, results
from services.gateway.session import SessionConfig
from tests.gateway.encode import packed
from tests.gateway.fakes import DEVICE_FAILED, RATE, FakeDiarizer, Mesh
from tests.gateway.listening import mesh_at_port
from tests.gateway.test_openai import TEXT, WORDS, wav
from tests.settings.serving import until

PLAIN = "hello there how are you"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Mesh]]:
    async with (
        mesh_at_port(words=WORDS, **settings) as (mesh, port),
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
        ) as client,
    ):
        yield client, mesh


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 5000):
        yield data[start : start + 5000]


def transcript(answer: httpx.Response) -> str:
    channel = answer.json()["results"]["channels"][0]
    return str(channel["alternatives"][0]["transcript"])


async def test_a_recording_is_answered_with_words_and_metadata() -> None:
    async with serving() as (client, _):
        answer = await client.post("/v1/listen?extra=a:b", content=wav())
    body = answer.json()
    metadata = body["metadata"]
    assert answer.status_code == 200
    assert metadata["request_id"] == answer.headers["dg-request-id"]
    assert metadata["sha256"] == hashlib.sha256(wav()).hexdigest()
    assert metadata["duration"] == 4.2
    assert metadata["channels"] == 1
    assert metadata["extra"] == {"a": "b"}
    assert list(metadata["model_info"]) == metadata["models"]
    assert datetime.fromisoformat(metadata["created"])
    assert "warnings" not in metadata
    (channel,) = body["results"]["channels"]
    (told,) = channel["alternatives"]
    assert told["transcript"] == PLAIN
    assert told["words"][0] == {"word": "hello", "start": 0.5, "end": 0.875, "confidence": 1.0}
    assert set(body["results"]) == {"channels"}
    assert "detected_language" not in channel


@pytest.mark.trap(11)
@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "application/octet-stream"}, {"Content-Type": "audio/wav"}]
)
@pytest.mark.parametrize("whole", [True, False])
async def test_bytes_are_taken_whatever_they_are_called(
    headers: dict[str, str], whole: bool
) -> None:
    async with serving() as (client, _):
        content = wav() if whole else chunked(wav())
        answer = await client.post("/v1/listen?punctuate=true", content=content, headers=headers)
    assert transcript(answer) == TEXT


async def test_raw_samples_are_taken_as_they_are_announced() -> None:
    async with serving() as (client, _):
        query = "?encoding=mulaw&sample_rate=8000"
        answer = await client.post(f"/v1/listen{query}", content=bytes(round(4.2 * 8000)))
    assert transcript(answer) == PLAIN


async def test_what_is_asked_for_and_not_done_is_said() -> None:
    async with serving() as (client, _):
        query = "summarize=v2&diarize=true&sentiment=true"
        answer = await client.post(f"/v1/listen?{query}", content=wav())
    warnings = answer.json()["metadata"]["warnings"]
    assert [warning["parameter"] for warning in warnings] == ["diarize", "sentiment", "summarize"]
    assert all(set(warning) == {"parameter", "type", "message"} for warning in warnings)
    assert speakers(answer) == [0] * len(WORDS)


def speakers(answer: httpx.Response) -> list[int | None]:
    (told,) = answer.json()["results"]["channels"][0]["alternatives"]
    return [word.get("speaker") for word in told["words"]]


@pytest.mark.parametrize("query", ["diarize=true", "diarize_model=v2"])
async def test_every_word_of_a_recording_says_who_spoke(query: str) -> None:
    diarizer = FakeDiarizer([(1, 0, 2 * RATE), (2, 2 * RATE, 5 * RATE)])
    query += "&utterances=true&utt_split=10&paragraphs=true&detect_language=en"
    async with serving(diarizer=diarizer) as (client, _):
        answer = await client.post(f"/v1/listen?{query}", content=wav())
    assert speakers(answer) == [0, 0, 1, 1, 1]
    body = answer.json()
    assert "warnings" not in body["metadata"]
    assert [
        (utterance["speaker"], utterance["transcript"], utterance["words"][0]["speaker"])
        for utterance in body["results"]["utterances"]
    ] == [(0, "Hello there.", 0), (1, "How are you?", 1)]
    (told,) = body["results"]["channels"][0]["alternatives"]
    assert told["paragraphs"]["transcript"] == (
        "\nSpeaker 0: Hello there.\n\nSpeaker 1: How are you?"
    )


async def test_a_recording_that_loses_its_diarizer_has_all_its_words_and_says_so() -> None:
    diarizer = FakeDiarizer([(1, 0, 2 * RATE), (2, 2 * RATE, 5 * RATE)])
    diarizer.faults.always[RATE] = DeviceError("it dies")
    async with serving(diarizer=diarizer, diarizer_patience_s=0.2) as (client, _):
        answer = await client.post("/v1/listen?diarize=true", content=wav())
    assert transcript(answer) == TEXT
    assert set(speakers(answer)) == {0}
    (warning,) = answer.json()["metadata"]["warnings"]
    assert (warning["parameter"], warning["type"]) == ("diarize", "unsupported")


def wav_of(pcm: bytes, channels: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, RATE, 0, "NONE", ""))
        file.writeframes(pcm)
    return out.getvalue()


def stereo() -> bytes:
    """A file whose second channel is silent, in a lossless format of two channels."""
    samples = np.zeros((round(4.2 * 48000), 2), np.int16)
    samples[:, 0] = 1000
    return packed(samples, "flac", "flac", rate_hz=48000)


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ("", stereo()),
        ("&encoding=linear16&sample_rate=8000&channels=2", bytes(round(4.2 * 8000) * 4)),
    ],
)
async def test_each_channel_is_a_lane_of_its_own(query: str, content: bytes) -> None:
    async with serving() as (client, mesh):
        asked = f"/v1/listen?multichannel=true&utterances=true&punctuate=true{query}"
        body = (await client.post(asked, content=content)).json()
        assert len(mesh.asr.streams) == 2
        assert mesh.gateway.open_sessions == 0
    told = [channel["alternatives"][0]["transcript"] for channel in body["results"]["channels"]]
    assert told == [TEXT, TEXT]
    assert (body["metadata"]["channels"], body["metadata"]["duration"]) == (2, 4.2)
    assert [utterance["channel"] for utterance in body["results"]["utterances"]] == [0, 1, 0, 1]


async def test_a_file_of_one_channel_has_one_lane() -> None:
    async with serving() as (client, _):
        body = (await client.post("/v1/listen?multichannel=true", content=wav())).json()
    assert (len(body["results"]["channels"]), body["metadata"]["channels"]) == (1, 1)
    assert "warnings" not in body["metadata"]


@pytest.mark.parametrize(
    ("channels", "settings", "status", "code"),
    [
        (9, {}, 400, "Bad Request"),
        (2, {"max_sessions": 1}, 429, "TOO_MANY_REQUESTS"),
        (2, {"max_file_s": 3}, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_channels_for_which_there_is_no_room_are_refused_together(
    channels: int, settings: dict[str, int], status: int, code: str
) -> None:
    content = wav_of(bytes(2 * channels * round(4.2 * RATE)), channels)
    async with serving(**settings) as (client, mesh):
        answer = await client.post("/v1/listen?multichannel=true", content=content)
        assert (answer.status_code, answer.json()["err_code"]) == (status, code)
        await until(lambda: mesh.gateway.open_sessions == 0 and mesh.asr.live == 0)


async def test_when_one_channel_cannot_go_on_none_does() -> None:
    content = wav_of(bytes(4 * round(4.2 * RATE)), 2)
    async with serving(asr_patience_s=0.2) as (client, mesh):
        mesh.asr.faults.always = {2 * RATE: DEVICE_FAILED}
        answer = await client.post("/v1/listen?multichannel=true", content=content)
        assert (answer.status_code, answer.json()["err_code"]) == (503, "UPSTREAM_FAILED")
        await until(lambda: mesh.gateway.open_sessions == 0)


@pytest.mark.parametrize(
    ("query", "content", "headers", "status", "code"),
    [
        ("", b"this is no audio" * 100, {}, 400, "Bad Request"),
        ("", b"", {}, 400, "Bad Request"),
        ("", b'{"url":"http://x"}', {"Content-Type": "application/json"}, 400, "Bad Request"),
        ("?encoding=banana", b"x", {}, 400, "INVALID_QUERY_PARAMETER"),
        ("?language=klingon", b"x", {}, 400, "INVALID_QUERY_PARAMETER"),
        ("?model=large-v9", b"x", {}, 400, "Bad Request"),
        ("", bytes(200_000), {}, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_served_is_refused_in_deepgrams_words(
    query: str, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving(max_upload_bytes=100_000) as (client, mesh):
        for body in (content, chunked(content)):
            answer = await client.post(f"/v1/listen{query}", content=body, headers=headers)
            told = answer.json()
            assert (answer.status_code, told["err_code"]) == (status, code)
            assert told["err_msg"] == told["message"] == answer.headers["dg-error"]
            assert told["request_id"] == answer.headers["dg-request-id"]
        assert mesh.gateway.open_sessions == 0


async def test_a_full_gateway_asks_to_come_again() -> None:
    """O1."""
    async with (
        serving(max_sessions=1) as (client, mesh),
        mesh.gateway.session(SessionConfig("s", "test")),
    ):
        answer = await client.post("/v1/listen", content=wav())
    assert (answer.status_code, answer.json()["err_code"]) == (429, "TOO_MANY_REQUESTS")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_client_that_leaves_takes_its_session_with_it() -> None:
    async with serving() as (client, mesh):
        mesh.asr.faults.gate.clear()
        post = asyncio.create_task(client.post("/v1/listen", content=wav()))
        await until(lambda: mesh.gateway.open_sessions == 1)
        post.cancel()
        await until(lambda: mesh.gateway.open_sessions == 0)


SAID = [
    *WORDS,
    *(Word(f" Sentence{i}.", 60_000 + 8000 * i, 66_000 + 8000 * i, 0.5) for i in range(5)),
]


def told(query: str, language: str = "en", said: Sequence[Word] = SAID) -> dict[str, Any]:
    wish = read_wish(QueryParams(query), live=False, models=[])
    return results([Heard(said, language, 0.75)], wish)


def test_utterances_are_parted_at_pauses() -> None:
    body = told("utterances=true&punctuate=true")
    first, *_, last = body["utterances"]
    assert first["transcript"] == "Hello there."
    assert first["words"][0]["punctuated_word"] == "Hello"
    assert (first["start"], first["end"], first["channel"]) == (0.5, 1.375, 0)
    assert last["confidence"] == pytest.approx((3 + 5 * 0.5) / 8)
    assert re.fullmatch("[0-9a-f-]{36}", first["id"])
    assert len(body["utterances"]) == 2
    assert len(told("utterances=true&utt_split=10")["utterances"]) == 1


def test_paragraphs_are_made_of_sentences() -> None:
    for query in ("paragraphs=true&punctuate=true", "smart_format=true"):
        paragraphs = told(query)["channels"][0]["alternatives"][0]["paragraphs"]
        first, second = paragraphs["paragraphs"]
        assert [sentence["text"] for sentence in first["sentences"]][:2] == [
            "Hello there.",
            "How are you?",
        ]
        assert (first["num_words"], first["start"], second["num_words"]) == (7, 0.5, 3)
        assert paragraphs["transcript"].startswith("\nHello there. How are you? Sentence0.")
        assert "\n\nSentence2." in paragraphs["transcript"]


SPOKEN = [
    replace(word, speaker=speaker)
    for word, speaker in zip(SAID, [1, 1, 2, 2, 1, 1, 1, 3, 3, 3], strict=True)
]


def test_utterances_and_paragraphs_have_one_speaker_each() -> None:
    body = told("utterances=true&smart_format=true", said=SPOKEN)
    assert [(said["speaker"], said["transcript"]) for said in body["utterances"]] == [
        (0, "Hello there."),
        (1, "How are"),
        (0, "you? Sentence0. Sentence1."),
        (2, "Sentence2. Sentence3. Sentence4."),
    ]
    paragraphs = body["channels"][0]["alternatives"][0]["paragraphs"]
    assert [
        (paragraph["speaker"], [sentence["text"] for sentence in paragraph["sentences"]])
        for paragraph in paragraphs["paragraphs"]
    ] == [
        (0, ["Hello there."]),
        (1, ["How are"]),
        (0, ["you?", "Sentence0.", "Sentence1."]),
        (2, ["Sentence2.", "Sentence3.", "Sentence4."]),
    ]


def test_the_text_of_paragraphs_says_who_speaks_where_that_changes() -> None:
    said = [Word(f" Sentence{i}.", 8000 * i, 8000 * i + 6000, speaker=1 + i // 5) for i in range(6)]
    paragraphs = told("smart_format=true", said=said)["channels"][0]["alternatives"][0]
    assert paragraphs["paragraphs"]["transcript"] == (
        "\nSpeaker 0: Sentence0. Sentence1. Sentence2. Sentence3."
        "\n\nSentence4."
        "\n\nSpeaker 1: Sentence5."
    )


def test_who_said_a_word_said_what_is_written_in_its_place() -> None:
    words = told("replace=how+are:x", said=SPOKEN)["channels"][0]["alternatives"][0]["words"]
    assert [(word["word"], word["speaker"]) for word in words[2:4]] == [("x", 1), ("you", 0)]


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("replace=hello:Goodbye", "Goodbye there", ["Goodbye", "there"]),
        ("replace=hello:Goodbye&punctuate=true", "Goodbye there.", ["Goodbye", "there"]),
        ("replace=hello+there:Hi+Y'all!&punctuate=true", "Hi Y'all!.", ["Hi Y'all!"]),
        ("replace=there:&punctuate=true", "Hello", ["hello"]),
        ("replace=hello:there&replace=there:hello", "there hello", ["there", "hello"]),
        ("replace=hello:hello+hello", "hello hello there", ["hello hello", "there"]),
        ("replace=there+how:x", "hello x", ["hello", "x"]),
        ("replace=hell:x", "hello there", ["hello", "there"]),
    ],
)
def test_what_is_said_is_written_as_it_is_asked_for(
    query: str, text: str, words: list[str]
) -> None:
    body = told(f"{query}&utterances=true&paragraphs=true")
    (channel,) = body["channels"]
    (alternative,) = channel["alternatives"]
    assert alternative["transcript"].startswith(text)
    assert [word["word"] for word in alternative["words"]][: len(words)] == words
    assert body["utterances"][0]["transcript"].startswith(text)
    assert alternative["paragraphs"]["transcript"].strip().startswith(text)


def test_one_word_in_place_of_several_lasts_as_long_as_they_did() -> None:
    query = "replace=hello+there:Hi&punctuate=true"
    first = told(query)["channels"][0]["alternatives"][0]["words"][0]
    assert first == {
        "word": "Hi",
        "punctuated_word": "Hi.",
        "start": 0.5,
        "end": 1.375,
        "confidence": 1.0,
    }


def test_a_search_tells_where_the_words_were_said() -> None:
    (channel,) = told("search=How+are&search=sentence1&search=nobody&search=...")["channels"]
    assert channel["search"] == [
        {
            "query": "How are",
            "hits": [{"confidence": 1.0, "start": 2.5, "end": 3.0, "snippet": "how are"}],
        },
        {
            "query": "sentence1",
            "hits": [{"confidence": 0.5, "start": 4.25, "end": 4.625, "snippet": "sentence1"}],
        },
        {"query": "nobody", "hits": []},
        {"query": "...", "hits": []},
    ]
    assert "search" not in told("")["channels"][0]


def test_a_language_that_was_detected_is_told() -> None:
    (channel,) = told("detect_language=true", "jw")["channels"]
    assert (channel["detected_language"], channel["language_confidence"]) == ("jv", 0.75)
    assert "detected_language" not in told("detect_language=true", "")["channels"][0]


def test_nothing_said_is_no_utterance_and_no_paragraph() -> None:
    wish = read_wish(QueryParams("utterances=true&smart_format=true"), live=False, models=[])
    body = results([Heard([], "en", 0.0)], wish)
    assert body["utterances"] == []
    (told,) = body["channels"][0]["alternatives"]
    assert (told["transcript"], told["words"], told["confidence"]) == ("", [], 0.0)
    assert told["paragraphs"] == {"transcript": "\n", "paragraphs": []}
