"""Live ``/v1/listen``, as its clients see it."""

import asyncio
import io
import json
import random
import time
import wave
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from services.common.errors import DeviceError
from services.common.words import Word
from services.gateway.audio_input import RawFormat
from services.gateway.lanes import Splitter
from services.gateway.protocols.deepgram_frames import (
    CloseStream,
    Configure,
    Finalize,
    KeepAlive,
    Malformed,
    read_data,
    read_text,
)
from services.gateway.session import SessionConfig
from tests.gateway.encode import encoded, packets
from tests.gateway.fakes import RATE, FakeDiarizer
from tests.gateway.listening import (
    CLOSE_STREAM,
    FINALIZE,
    KEEP_ALIVE,
    RAW,
    listener,
    mesh_at_port,
    text_of,
)
from tests.settings.serving import until


def wav(duration_s: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * round(duration_s * RATE)))
    return out.getvalue()


async def refused(port: int, query: str = RAW, **options: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as error:
        async with listener(port, query, **options):
            pass
    return error.value


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (KEEP_ALIVE, KeepAlive()),
        (' { "type" : "KeepAlive", "more": [1] } ', KeepAlive()),
        (CLOSE_STREAM, CloseStream()),
        ('{"type":"Finalize","channel":1}', Finalize(1, '{"type":"Finalize","channel":1}')),
        ('{"type":"Configure","processors":{}}', Configure(None)),
        ('{"type":"Configure","keyterms":["a"]}', Configure(("a",))),
    ],
)
def test_a_command_is_read_from_text_and_from_small_binary_frames(
    text: str, command: object
) -> None:
    assert read_text(text) == command
    assert read_data(text.encode()) == command


@pytest.mark.parametrize(
    "text",
    [
        *("hello", "{}", "[]", "null", '{"type":"Banana"}', "[" * 2000, '{"type": {}}'),
        *('{"type":"Finalize","channel":"0"}', '{"type":"Configure","keyterms":"a"}'),
        '{"type":"KeepAlive","x":"' + "x" * 70_000 + '"}',
    ],
)
def test_other_texts_are_malformed_and_in_a_binary_frame_they_are_audio(text: str) -> None:
    assert isinstance(read_text(text), Malformed)
    assert read_data(text.encode()) == text.encode()


def test_an_empty_frame_is_the_end_of_the_audio() -> None:
    assert read_data(b"") == CloseStream()


@pytest.mark.parametrize("encoding", ["linear16", "mulaw"])
def test_channels_are_parted_wherever_the_audio_is_cut(encoding: Any) -> None:
    dtype = np.int16 if encoding == "linear16" else np.uint8
    samples = np.random.default_rng(0).integers(0, 100, (500, 3)).astype(dtype)
    data = samples.tobytes()
    splitter = Splitter(RawFormat(encoding, 8000, 3))
    cuts = [0, *sorted(random.Random(1).sample(range(len(data)), 20)), len(data)]
    parts = [splitter.split(data[first:end]) for first, end in pairwise(cuts)]
    for channel in range(3):
        joined = b"".join(part[channel] for part in parts)
        assert joined == samples[:, channel].tobytes()


@pytest.mark.row("W1")
@pytest.mark.trap(2, 6)
async def test_a_plain_stream() -> None:
    async with mesh_at_port(0.5, 1.5, 4.0) as (_, port), listener(port) as client:
        assert client.socket.response is not None
        request_id = client.socket.response.headers["dg-request-id"]
        await client.say(6)
        await client.socket.send(CLOSE_STREAM)
        assert await client.closed() == (1000, "")
    assert client.text == "w0 w1 w2"
    assert {message["type"] for message in client.messages} == {"Results", "Metadata"}
    for result in client.of("Results"):
        assert result["channel_index"] == [0, 1]
        assert result["is_final"] is True
        assert result["metadata"]["request_id"] == request_id
        assert set(result["metadata"]["model_info"]) == {"name", "version", "arch"}
        assert isinstance(result["start"], float)
        assert isinstance(result["duration"], float)
    for before, after in pairwise(client.finals):
        assert after["start"] == pytest.approx(before["start"] + before["duration"])
    metadata = client.messages[-1]
    assert metadata["type"] == "Metadata"
    assert (metadata["duration"], metadata["channels"]) == (6.0, 1)
    assert metadata["created"].endswith("Z")
    assert list(metadata["model_info"]) == metadata["models"]
    assert len(metadata["sha256"]) == 64


@pytest.mark.row("W15")
@pytest.mark.trap(11)
async def test_what_is_said_between_start_and_end_is_told_as_it_is_asked_for() -> None:
    query = f"{RAW}&interim_results=True&vad_events=TRUE&punctuate=1&endpointing=True&extra=a:b"
    async with (
        mesh_at_port(0.5, 1.5, 4.0) as (_, port),
        listener(port, query + "&utterance_end_ms=1000") as client,
    ):
        await client.say(6, pause_s=0.02)
        await client.finish()
    assert client.text == "w0 w1 w2"
    kinds = [message["type"] for message in client.messages]
    assert kinds[0] == "SpeechStarted"
    assert kinds.count("SpeechStarted") == 3
    assert client.messages[0]["channel"] == [0, 1]
    assert [m["last_word_end"] for m in client.of("UtteranceEnd")] == [0.9, 1.9, 4.4][1:]
    assert any(not result["is_final"] and text_of(result) for result in client.of("Results"))
    assert sum(result["speech_final"] for result in client.of("Results")) == 3
    spoken = next(result for result in client.finals if text_of(result) == "w0")
    (word,) = spoken["channel"]["alternatives"][0]["words"]
    assert word == {
        "word": "w0",
        "start": 0.5,
        "end": 0.9,
        "confidence": 1.0,
        "punctuated_word": "w0",
    }
    assert client.messages[-1]["extra"] == {"a": "b"}


TURNS = ((1, 0, 2 * RATE), (2, 7 * RATE // 2, 6 * RATE))


@pytest.mark.row("D1")
@pytest.mark.parametrize("query", ["diarize=true", "diarize_model=latest"])
async def test_words_say_who_spoke_and_those_of_finals_always_do(query: str) -> None:
    diarizer = FakeDiarizer(TURNS)
    async with (
        mesh_at_port(0.5, 1.0, 1.5, 4.0, 4.5, diarizer=diarizer) as (_, port),
        listener(port, f"{RAW}&interim_results=true&{query}") as client,
    ):
        await client.say(4.95, pause_s=0.01)
        await client.socket.send(FINALIZE)
        answer = await client.until(from_finalize=True)
        await client.finish()
    spoken = {"w0": 0, "w1": 0, "w2": 0, "w3": 1, "w4": 1}
    finals = [word for result in client.finals for word in words_of(result)]
    assert [(word["punctuated_word"], word["speaker"]) for word in finals] == list(spoken.items())
    interims = [word for r in client.of("Results") if not r["is_final"] for word in words_of(r)]
    assert all(word.get("speaker") in {None, spoken[word["word"]]} for word in interims)
    assert any("speaker" not in word for word in interims)
    assert words_of(answer)[-1]["speaker"] == 1
    assert diarizer.opens


def words_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return list(result["channel"]["alternatives"][0]["words"])


@pytest.mark.parametrize(
    ("query", "turns", "speakers"),
    [("diarize=true", None, [0, 0]), ("diarize=false", TURNS, [None, None])],
    ids=["without a diarizer", "not asked for"],
)
async def test_nobody_is_told_apart_by_nobody_and_for_nobody(
    query: str, turns: Any, speakers: list[int | None]
) -> None:
    diarizer = None if turns is None else FakeDiarizer(turns)
    async with (
        mesh_at_port(0.5, 4.0, diarizer=diarizer) as (_, port),
        listener(port, f"{RAW}&{query}") as client,
    ):
        await client.say(6)
        await client.finish()
    words = [word for result in client.finals for word in words_of(result)]
    assert [word.get("speaker") for word in words] == speakers
    assert diarizer is None or not diarizer.opens


async def test_speakers_are_told_apart_in_each_channel_by_itself() -> None:
    diarizer = FakeDiarizer(TURNS)
    query = "encoding=linear16&sample_rate=16000&channels=2&multichannel=true&diarize=true"
    async with (
        mesh_at_port(0.5, 4.0, diarizer=diarizer) as (_, port),
        listener(port, query) as client,
    ):
        await client.say(6, width=4)
        await client.finish()
    for channel in (0, 1):
        results = [r for r in client.finals if r["channel_index"] == [channel, 2]]
        assert [word["speaker"] for r in results for word in words_of(r)] == [0, 1]
    assert len(diarizer.opens) == 2


@pytest.mark.row("W9")
@pytest.mark.trap(4, 11)
async def test_finalize_brings_what_is_pending_and_nothing_again() -> None:
    async with mesh_at_port(0.5, 1.5) as (_, port), listener(port) as client:
        await client.socket.send(FINALIZE)
        await client.until(from_finalize=True)
        assert client.text == ""
        await client.say(0.95)
        await client.socket.send(FINALIZE)
        answer = await client.until(from_finalize=True)
        assert (answer["is_final"], text_of(answer)) == (True, "w0")
        assert answer["start"] + answer["duration"] == pytest.approx(0.95, abs=0.11)
        for _ in range(2):
            await client.socket.send(FINALIZE)
            assert text_of(await client.until(from_finalize=True)) == ""
        await client.say(2)
        await client.socket.send('{"type":"Finalize","channel":0}')
        await client.socket.send(CLOSE_STREAM)
        assert (await client.closed())[0] == 1000
    assert client.text == "w0 w1"
    assert all(m["is_final"] for m in client.of("Results") if m["from_finalize"])


@pytest.mark.parametrize(
    ("query", "data"),
    [(RAW, bytes(4)), (f"{RAW}&channels=2", bytes(3)), ("model=nova-3", wav(1)[:44])],
    ids=["too short for a header", "less than a sample", "a header alone"],
)
async def test_finalize_does_not_wait_for_bytes_that_may_never_come(
    query: str, data: bytes
) -> None:
    async with mesh_at_port() as (_, port), listener(port, query) as client:
        await client.socket.send(data)
        await client.socket.send(FINALIZE)
        await client.until(from_finalize=True)
        await client.say(0.5)
        assert (await client.finish())[-1]["type"] == "Metadata"


@pytest.mark.trap(5)
async def test_the_rest_comes_in_one_final_soon_after_the_end() -> None:
    async with mesh_at_port(0.5, 1.0, 1.5) as (_, port), listener(port) as client:
        await client.say(1.95, pause_s=0.01)
        await asyncio.sleep(0.2)  # the session keeps up
        began = time.monotonic()
        await client.finish()
        elapsed_s = time.monotonic() - began
    last, metadata = client.messages[-2:]
    assert (last["is_final"], last["speech_final"]) == (True, True)
    assert text_of(last).endswith("w2")
    assert metadata["type"] == "Metadata"
    assert elapsed_s < 2.0


@pytest.mark.row("W13")
async def test_a_stream_without_audio_is_metadata() -> None:
    for query in (RAW, "model=nova-3"):
        async with mesh_at_port() as (_, port), listener(port, query) as client:
            (metadata,) = await client.finish()
        assert (metadata["type"], metadata["duration"]) == ("Metadata", 0.0)


@pytest.mark.row("W7", "W10")
@pytest.mark.parametrize("last", [b"", CLOSE_STREAM.encode()])
async def test_the_end_may_be_told_in_binary(last: bytes) -> None:
    async with mesh_at_port(0.5) as (_, port), listener(port) as client:
        await client.socket.send(KEEP_ALIVE.encode())
        await client.say(1)
        assert (await client.finish(last))[-1]["type"] == "Metadata"
    assert client.text == "w0"


@pytest.mark.row("W6", "W8")
@pytest.mark.trap(6, 11)
async def test_what_means_nothing_is_answered_and_does_no_harm() -> None:
    texts = ["hello", '{"type":"Banana"}', "{}", "[]", '{"type":"Finalize","channel":7}']
    async with mesh_at_port(0.5) as (_, port), listener(port) as client:
        await client.socket.send(' {"type" : "KeepAlive", "x": 1} ')
        for text in texts:
            await client.socket.send(text)
            error = await client.next()
            assert (error["type"], error["variant"]) == ("Error", "SchemaError")
            assert error["message"] == text
            assert error["description"]
        await client.socket.send("x" * 200_000)
        assert len(str(await client.next())) < 2000
        await client.say(1)
        await client.socket.send(KEEP_ALIVE)
        await client.finish()
    assert client.text == "w0"
    assert len(client.of("Error")) == 6


@pytest.mark.row("W8")
@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"processors": {"numerals": True}}, {"type": "ConfigureSuccess"}),
        ({"features": {"numerals": True}}, {"type": "ConfigureSuccess"}),
        ({"keyterms": ["a"]}, {"type": "ConfigureSuccess", "keyterms": ["a"]}),
        (
            {"keyterms": ["b"]},
            {"type": "ConfigureFailure", "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED"},
        ),
    ],
)
async def test_configure_is_answered_once(asked: dict[str, Any], answer: dict[str, Any]) -> None:
    async with mesh_at_port(0.5) as (_, port), listener(port, f"{RAW}&keyterm=a") as client:
        await client.socket.send(json.dumps({"type": "Configure", **asked}))
        told = await client.next()
        assert answer.items() <= told.items()
        assert told["request_id"]
        await client.say(1)
        await client.finish()
    assert client.text == "w0"


@pytest.mark.row("W2", "W3", "W24")
@pytest.mark.trap(11)
@pytest.mark.parametrize("query", ["", RAW])
async def test_a_wav_file_is_understood_wherever_it_is_cut(query: str) -> None:
    body = wav(3)
    async with mesh_at_port(0.5, 1.5) as (_, port), listener(port, query) as client:
        start = 0
        for size in (1, 3, 7, 1023, 4097, 31, 32001, len(body)):
            await client.socket.send(body[start : start + size])
            start += size
        await client.finish()
    assert client.text == "w0 w1"
    assert client.messages[-1]["duration"] == pytest.approx(3, abs=0.01)


@pytest.mark.row("W4")
@pytest.mark.parametrize(
    ("encoding", "rate_hz", "channels", "width"),
    [
        ("mulaw", 8000, 1, 1),
        ("alaw", 8000, 1, 1),
        ("linear32", 48000, 2, 4),
        ("linear16", 24000, 1, 2),
    ],
)
async def test_raw_samples_of_every_kind(
    encoding: str, rate_hz: int, channels: int, width: int
) -> None:
    query = f"encoding={encoding}&sample_rate={rate_hz}&channels={channels}&model=nova-2-phonecall"
    async with mesh_at_port(0.5) as (_, port), listener(port, query) as client:
        await client.socket.send(bytes(2 * rate_hz * channels * width))
        await client.finish()
    assert client.text == "w0"
    assert client.messages[-1]["duration"] == pytest.approx(2, abs=0.01)
    assert client.messages[-1]["channels"] == 1


SECOND = np.zeros(RATE, np.int16)
TWO_SECONDS = np.zeros(2 * RATE, np.int16)


@pytest.mark.parametrize(
    ("query", "messages"),
    [
        ("encoding=opus", packets(SECOND, "libopus") * 2),
        ("encoding=opus&sample_rate=16000", packets(SECOND, "libopus", rate_hz=16000) * 2),
        ("encoding=opus&sample_rate=48000&channels=2", packets(SECOND, "libopus", channels=2) * 2),
        (
            "encoding=opus&sample_rate=48000",
            [encoded(TWO_SECONDS, "ogg", "libopus")],
        ),
        ("encoding=opus", [encoded(TWO_SECONDS, "webm", "libopus")]),
        ("encoding=amr-nb", packets(SECOND, "libopencore_amrnb", rate_hz=8000) * 2),
        ("encoding=amr-nb", [b"".join(packets(SECOND, "libopencore_amrnb", rate_hz=8000))] * 2),
        ("encoding=amr-nb", [b"#!AMR\n", *packets(SECOND, "libopencore_amrnb", rate_hz=8000) * 2]),
        ("encoding=amr-wb", [b"\x44" + bytes(60)] * 100),
        ("encoding=g729&sample_rate=8000", [bytes(10)] * 200),
        ("encoding=g729", [bytes(160)] * 13),
    ],
)
async def test_packets_are_taken_one_by_one(query: str, messages: list[bytes]) -> None:
    async with mesh_at_port(0.5) as (_, port), listener(port, query) as client:
        for message in messages:
            await client.socket.send(message)
        await client.finish()
    assert client.text == "w0"
    assert client.messages[-1]["duration"] == pytest.approx(2, abs=0.1)


@pytest.mark.row("W23")
@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("opus", b"\xff" * 50),
        ("opus", bytes(9000)),
        ("speex&sample_rate=8000", b"\xff" * 50),
        ("g729", bytes(7)),
        ("amr-nb", b"\xff" * 30),
    ],
)
async def test_a_packet_that_is_none_closes_its_stream_alone(encoding: str, bad: bytes) -> None:
    good = packets(SECOND, "libopus")
    async with mesh_at_port(0.5) as (_, port), listener(port, "encoding=opus") as other:
        async with listener(port, f"encoding={encoding}") as client:
            await client.socket.send(bad)
            code, reason = await client.closed()
        assert (code, reason.partition(":")[0]) == (1008, "DATA-0000")
        for packet in good:
            await other.socket.send(packet)
        await other.finish()
    assert other.text == "w0"


async def test_a_stream_of_no_packets_is_metadata() -> None:
    async with mesh_at_port() as (_, port), listener(port, "encoding=opus") as client:
        (metadata,) = await client.finish()
    assert (metadata["type"], metadata["duration"]) == ("Metadata", 0.0)


@pytest.mark.row("W5")
async def test_channels_are_lanes_of_their_own() -> None:
    query = RAW.replace("channels=1", "channels=2") + "&multichannel=true&interim_results=true"
    async with mesh_at_port(0.5, 1.5) as (mesh, port):
        async with listener(port, query) as client:
            await client.say(1, width=4)
            assert mesh.gateway.open_sessions == 2
            await client.socket.send('{"type":"Finalize","channel":1}')
            answer = await client.until(from_finalize=True)
            assert answer["channel_index"] == [1, 2]
            await client.say(2, width=4)
            await client.socket.send(FINALIZE)
            await client.finish()
        await until(lambda: mesh.gateway.open_sessions == 0)
    for channel in range(2):
        finals = [m for m in client.finals if m["channel_index"] == [channel, 2]]
        assert " ".join(filter(None, map(text_of, finals))) == "w0 w1"
    assert {tuple(m["channel_index"]) for m in client.of("Results")} == {(0, 2), (1, 2)}
    assert client.messages[-1]["channels"] == 2


async def test_channels_for_which_there_is_no_room_are_refused_together() -> None:
    query = RAW.replace("channels=1", "channels=3") + "&multichannel=true"
    async with mesh_at_port(max_sessions=2) as (mesh, port):
        assert (await refused(port, query)).response.status_code == 429
        await until(lambda: mesh.gateway.open_sessions == 0 and mesh.asr.live == 0)


@pytest.mark.row("W16")
@pytest.mark.parametrize("off", ["false", "0"])
async def test_without_endpointing_no_utterance_ends_before_the_stream(off: str) -> None:
    async with mesh_at_port(0.5, 3) as (_, port), listener(port, f"{RAW}&endpointing={off}") as it:
        await it.say(6, pause_s=0.005)
        await it.finish()
    assert it.text == "w0 w1"
    assert not any(result["speech_final"] for result in it.finals[:-1])


@pytest.mark.row("W17")
@pytest.mark.trap(7)
async def test_languages_are_told_where_several_are_asked_for() -> None:
    async with mesh_at_port(0.5) as (mesh, port):
        mesh.gateway.pools.default.info = None
        mesh.asr.languages = ("fr",)
        await mesh.gateway.pools.describe()
        async with listener(port, f"{RAW}&language=multi") as client:
            await client.say(1)
            await client.finish()
    (told,) = [final for final in client.finals if text_of(final)]
    assert told["channel"]["alternatives"][0]["languages"] == ["fr"]
    assert told["channel"]["alternatives"][0]["words"][0]["language"] == "fr"


async def test_a_stream_is_written_and_searched_as_it_is_asked_for() -> None:
    query = f"{RAW}&replace=w0:Vladimir&search=w1"
    async with mesh_at_port(0.5, 1.5) as (_, port), listener(port, query) as client:
        await client.say(3)
        await client.finish()
    assert client.text == "Vladimir w1"
    searched = [final["channel"]["search"] for final in client.finals]
    assert all(told["query"] == "w1" for (told,) in searched)
    hits = [hit for (told,) in searched for hit in told["hits"]]
    assert hits == [{"confidence": 1.0, "start": 1.5, "end": 1.9, "snippet": "w1"}]


async def test_hotwords_and_language_reach_the_recogniser() -> None:
    query = f"{RAW}&language=fr-CA&keyterm=Pozzo&keywords=Lucky:2"
    async with mesh_at_port() as (mesh, port), listener(port, query) as client:
        await client.finish()
        (stream,) = mesh.asr.streams
    assert list(stream.open.config.hotwords) == ["Pozzo", "Lucky"]
    assert stream.open.config.language_code == "fr"


@pytest.mark.row("W22")
@pytest.mark.trap(1, 8)
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("encoding=banana", "banana"),
        (f"{RAW}&language=klingon", "klingon"),
        (f"{RAW}&language=de", "de"),
        (f"{RAW}&model=large-v9", "large-v9"),
        (f"{RAW}&redact=pci", "redact"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_before_the_upgrade(
    query: str, message: str
) -> None:
    async with mesh_at_port() as (mesh, port):
        response = (await refused(port, query)).response
        assert mesh.gateway.open_sessions == 0
    assert response.status_code == 400
    body = json.loads(response.body)
    assert message in body["err_msg"]
    assert body["request_id"] == response.headers["dg-request-id"]
    assert response.headers["dg-error"] == body["err_msg"]
    assert {"err_code", "category", "message", "details"} <= body.keys()


@pytest.mark.row("W19", "W20")
@pytest.mark.trap(3)
@pytest.mark.parametrize(
    ("headers", "offered", "chosen"),
    [
        *(
            ({"Authorization": f"{scheme} a"}, [], None)
            for scheme in ("Token", "token", "Bearer", "bearer")
        ),
        ({}, ["token", "a"], "token"),
        ({}, ["bearer", "a"], "bearer"),
        ({}, ["token", "a", "x-deepgram-session-id", "5b"], "token"),
    ],
)
async def test_a_key_is_taken_wherever_clients_put_it(
    headers: dict[str, str], offered: list[str], chosen: str | None
) -> None:
    subprotocols = [Subprotocol(name) for name in offered]
    async with (
        mesh_at_port(keys={"alice": "a"}) as (_, port),
        listener(port, subprotocols=subprotocols or None, additional_headers=headers) as client,
    ):
        assert client.socket.subprotocol == chosen
        await client.finish()


@pytest.mark.row("W21")
@pytest.mark.trap(1, 8)
async def test_a_wrong_key_is_refused_in_the_words_of_both_families() -> None:
    async with mesh_at_port(keys={"alice": "a"}) as (_, port):
        headers = {"Authorization": "Token wrong"}
        response = (await refused(port, additional_headers=headers)).response
    body = json.loads(response.body)
    assert response.status_code == 401
    assert response.headers["dg-error"] == "Invalid credentials."
    assert (body["err_code"], body["err_msg"]) == ("INVALID_AUTH", "Invalid credentials.")
    assert body["request_id"] == response.headers["dg-request-id"]
    assert body["error"]["code"] == "invalid_api_key"


async def test_where_there_is_no_room_a_client_is_told_when_to_come_again() -> None:
    """O1."""
    async with (
        mesh_at_port(max_sessions=1) as (mesh, port),
        mesh.gateway.session(SessionConfig("s", "test")),
    ):
        response = (await refused(port)).response
    assert response.status_code == 429
    assert json.loads(response.body)["err_code"] == "TOO_MANY_REQUESTS"
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.row("W23")
async def test_bytes_that_are_no_audio_close_the_stream() -> None:
    async with mesh_at_port() as (_, port), listener(port, "model=nova-3") as client:
        for _ in range(34):
            await client.socket.send(b"this is not audio at all. " * 40)
        code, reason = await client.closed()
    assert code == 1008
    assert reason.startswith("DATA-0000")
    assert client.messages == []


@pytest.mark.row("W26")
async def test_a_silent_client_is_disconnected() -> None:
    async with (
        mesh_at_port(listen_idle_s=0.3) as (mesh, port),
        listener(port, ping_interval=None) as client,
    ):
        code, reason = await client.closed()
        await until(lambda: mesh.gateway.open_sessions == 0)
    assert code == 1011
    assert reason.startswith("NET-0001")


@pytest.mark.row("W27")
async def test_who_keeps_the_stream_alive_is_not_silent_and_time_is_counted_in_audio() -> None:
    async with mesh_at_port(0.5, listen_idle_s=0.5) as (_, port), listener(port) as client:
        await client.say(0.1)
        for _ in range(8):
            await client.socket.send(KEEP_ALIVE)
            await asyncio.sleep(0.1)  # for much longer than a client may be silent
        await client.say(2)
        await client.finish()
    assert client.text == "w0"
    last = client.finals[-1]
    assert last["start"] + last["duration"] == pytest.approx(2.1)


@pytest.mark.row("W11", "W12")
async def test_a_client_that_leaves_is_let_go_of_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """C6."""
    async with mesh_at_port(0.5) as (mesh, port):
        for number in range(6):
            async with connect(f"ws://127.0.0.1:{port}/v1/listen?{RAW}", proxy=None) as socket:
                await socket.send(bytes(3200 * (number % 3)))
                if number % 2:
                    socket.transport.abort()
        await until(lambda: mesh.gateway.open_sessions == 0 and mesh.asr.live == 0)
    assert caplog.records == []


async def test_a_session_that_cannot_go_on_is_closed_with_an_error_of_the_network() -> None:
    """F6."""
    async with mesh_at_port(0.5, 3.0, asr_patience_s=0.2) as (mesh, port), listener(port) as it:
        mesh.asr.faults.always = {round(3.2 * RATE): DeviceError("boom")}
        await it.say(6)
        code, reason = await it.closed()
    assert code == 1011
    assert reason.startswith("NET-0000")
    assert it.text == "w0", "what was certain is told before"
    assert it.of("Metadata") == []


async def test_without_a_vad_utterances_end_where_no_word_follows() -> None:
    """F5."""
    async with mesh_at_port(0.5, 4.0, vad_patience_s=0.2) as (mesh, port):
        await mesh.vad_replica.kill()
        async with listener(port, f"{RAW}&endpointing=300") as client:
            await client.say(3)
            await client.until(speech_final=True)
            assert client.text == "w0"
            await client.say(3)
            await client.until(speech_final=True)
            await client.finish()
    assert client.text == "w0 w1"


@pytest.mark.trap(6)
async def test_a_dying_recogniser_is_not_the_clients_business() -> None:
    """F2. W1: every word once."""
    async with mesh_at_port(*range(1, 10)) as (mesh, port), listener(port) as client:
        mesh.asr.faults.once = {3 * RATE: DeviceError("x"), 6 * RATE: ZeroDivisionError}
        await client.say(11)
        await client.finish()
    assert client.text.split() == [f"w{number}" for number in range(9)]
    assert client.of("Error") == []


async def test_a_bug_closes_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.gateway.session.Session.run", broken)
    async with mesh_at_port() as (_, port), listener(port) as client:
        assert await client.closed() == (1011, "NET-0000: internal error")


async def test_a_stopping_gateway_brings_the_last_words_home() -> None:
    """G1."""
    async with mesh_at_port(0.5, 1.5) as (mesh, port), listener(port) as client:
        await client.say(2)
        await client.socket.send(FINALIZE)
        await client.until(from_finalize=True)
        await mesh.gateway.drain(1.0)
        assert (await client.closed())[0] == 1012
        assert (await refused(port)).response.status_code == 503
    assert client.text == "w0 w1"
    assert client.messages[-1]["type"] == "Metadata"


async def test_an_hour_of_text_is_told_in_messages_that_clients_take() -> None:
    """O3."""
    words = [Word(f" w{i}", 800 * i, 800 * i + 400) for i in range(2500)]
    async with mesh_at_port(words=words) as (_, port), listener(port) as client:
        for _ in range(125):
            await client.say(1)
        await client.socket.send(CLOSE_STREAM)
        await asyncio.sleep(1)  # it does not read meanwhile
        await client.closed()
    assert client.text.split() == [f"w{i}" for i in range(2500)]


async def test_a_full_recogniser_is_no_room_either() -> None:
    async with mesh_at_port() as (mesh, port):
        mesh.asr.faults.refusals = 1000
        assert (await refused(port)).response.status_code == 429


async def test_status_and_engine_are_as_probes_expect() -> None:
    async with (
        mesh_at_port() as (mesh, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
        listener(port),
    ):
        assert (await http.get("/v1/status")).json() == {
            "system_health": "Healthy",
            "active_batch_requests": 0,
            "active_stream_requests": 1,
        }
        assert (await http.get("/v1/status/engine")).text.startswith(
            '{"engine_connection_status":"Connected"'
        )
        await mesh.asr_replica.kill()
        assert "Disconnected" in (await http.get("/v1/status/engine")).text
