"""Deepgram's SDKs and what is built on them: live streams and recordings."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from services.gateway.languages import NAMES
from services.gateway.protocols.deepgram_words import iso_code
from tests.conftest import ServedMesh
from tests.protocols.conftest import (
    KEY,
    SAID,
    Observed,
    RunClient,
    assert_heard,
    write_wav,
)

SPEED = "6"
"""Seconds of audio that a program plays in a second."""

Message = dict[str, Any]


def transcript(result: Message) -> str:
    return str(result["channel"]["alternatives"][0]["transcript"])


def words_of(results: list[Message]) -> list[Message]:
    return [word for result in results for word in result["channel"]["alternatives"][0]["words"]]


def finals_of(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["type"] == "Results" and m["is_final"]]


def assert_transcribed(messages: list[Message]) -> None:
    """Everything that was said is final once, and finals tile the audio."""
    finals = finals_of(messages)
    assert_heard(" ".join(map(transcript, finals)))
    for before, after in pairwise(finals):
        assert after["start"] == pytest.approx(before["start"] + before["duration"], abs=0.05)
    for result in messages:
        if result["type"] != "Results":
            continue
        assert result["metadata"]["request_id"]
        assert result["metadata"]["model_info"]["name"]


def kinds(messages: list[Message]) -> set[str]:
    return {message["type"] for message in messages}


@pytest.mark.row("D1", "D2", "D3", "D5")
@pytest.mark.trap(7)
async def test_python_5_and_7(
    run_client: RunClient, keyed_mesh: ServedMesh, utterances: Path, utterances_wav: Path
) -> None:
    url, pcm = keyed_mesh.http_url, str(utterances)
    raw = ("encoding=linear16", "sample_rate=16000", "keyterm=epoch", "keyterm=belief")
    live, leaving, recordings, older = await asyncio.gather(
        run_client(
            *("deepgram-7", "deepgram_live.py", url, pcm, SPEED, *raw),
            *("model=nova-3", "language=en-US", "interim_results=true", "smart_format=true"),
            *("punctuate=true", "endpointing=300", "utterance_end_ms=1000", "vad_events=true"),
            *("diarize=true", "numerals=true", "tag=a", "tag=b", "extra=k:v", "mip_opt_out=true"),
        ),
        run_client("deepgram-7", "deepgram_leaving.py", url, pcm, SPEED),
        run_client("deepgram-7", "deepgram_rest.py", url, str(utterances_wav)),
        run_client(
            *("deepgram-5", "deepgram_live.py", url, pcm, SPEED, *raw),
            *("model=nova-3", "language=multi", "endpointing=100", "vad_events=true"),
        ),
    )
    check_python_7_live(live)
    check_python_7_without_a_word_of_farewell(leaving)
    check_python_7_recordings(recordings)
    check_python_5_live(older)


def check_python_7_live(observed: Observed) -> None:
    *events, closed, listened = observed
    assert (closed["event"], listened["event"]) == ("close", "listened")
    assert {event["event"] for event in events} == {"message"}
    assert {event["class"] for event in events} == {
        f"ListenV1{kind}" for kind in ("Results", "Metadata", "SpeechStarted", "UtteranceEnd")
    }
    messages = [event["message"] for event in events]
    assert_transcribed(messages)
    assert any(m["type"] == "Results" and not m["is_final"] for m in messages)
    assert next(e for e in events if e["message"].get("from_finalize"))["asked"][-1] == "Finalize"
    assert messages[-1]["type"] == "Metadata"
    assert messages[-1]["extra"] == {"k": "v"}
    assert "," in transcript(finals_of(messages)[0])
    assert {word["speaker"] for word in words_of(finals_of(messages))} == {0}


def check_python_7_without_a_word_of_farewell(observed: Observed) -> None:
    """D2."""
    *events, end = observed
    messages = [event["message"] for event in events]
    assert kinds(messages) == {"Results"}
    assert all(message["is_final"] for message in messages)
    assert any(map(transcript, messages))
    assert not end["alive"]


def check_python_7_recordings(observed: Observed) -> None:
    """D3, but for URLs, which are refused."""
    by_name = {line["what"]: line for line in observed}
    for name in ("bytes", "generator"):
        line = by_name[name]
        assert (line["class"], line["created"]) == ("ListenV1Response", "datetime")
        metadata = line["answer"]["metadata"]
        assert metadata["duration"] == pytest.approx(14.6, abs=0.1)
        assert metadata["models"]
        (channel,) = line["answer"]["results"]["channels"]
        assert_heard(channel["alternatives"][0]["transcript"])
    results = by_name["bytes"]["answer"]["results"]
    assert results["channels"][0]["detected_language"] == "en"
    assert len(results["utterances"]) == 2
    (told,) = results["channels"][0]["alternatives"]
    assert told["paragraphs"]["paragraphs"]
    parts = (told["words"], told["paragraphs"]["paragraphs"], results["utterances"])
    assert all({part["speaker"] for part in each} == {0} for each in parts)
    for name in ("garbage", "url"):
        assert by_name[name]["status"] == 400
        assert {"err_code", "err_msg", "request_id"} <= by_name[name]["body"].keys()
    assert by_name["models"]["answer"]["stt"][0]["name"] == "tiny.en"


def check_python_5_live(observed: Observed) -> None:
    """D5."""
    *events, closed, listened = observed
    assert (closed["event"], listened["event"]) == ("close", "listened")
    assert {event["class"] for event in events} == {
        f"ListenV1{kind}Event" for kind in ("Results", "Metadata", "SpeechStarted")
    }
    messages = [event["message"] for event in events]
    assert_transcribed(messages)
    for result in finals_of(messages):
        assert result["channel"]["alternatives"][0]["languages"] == ["en"]


@pytest.fixture(scope="session")
def stereo(utterances: Path) -> Path:
    """The first of the utterances on one channel, the second one on the other."""
    samples = np.frombuffer(utterances.read_bytes(), "<i2")
    channels = np.zeros((len(samples), 2), "<i2")
    cut = round(5.6 * 16_000)
    channels[:cut, 0], channels[cut:, 1] = samples[:cut], samples[cut:]
    return write_wav(utterances.with_name("stereo.wav"), channels.tobytes(), channels=2)


@pytest.mark.row("D3")
async def test_python_7_with_a_token(
    run_client: RunClient, keyed_mesh: ServedMesh, recording_url: str, stereo: Path
) -> None:
    """URLs and channels."""
    observed = await run_client(
        *("deepgram-7", "deepgram_grant.py", keyed_mesh.http_url, KEY, recording_url, str(stereo))
    )
    by_name = {line["what"]: line for line in observed}
    assert by_name["granted"]["class"] == "GrantV1Response"
    assert by_name["granted"]["answer"]["expires_in"] == 600
    assert by_name["url"]["class"] == by_name["channels"]["class"] == "ListenV1Response"
    (fetched,) = by_name["url"]["answer"]["results"]["channels"]
    assert_heard(fetched["alternatives"][0]["transcript"])
    answer = by_name["channels"]["answer"]
    assert answer["metadata"]["channels"] == 2
    first, second = answer["results"]["channels"]
    halves = SAID.partition(" it was the age")
    assert_heard(first["alternatives"][0]["transcript"], halves[0].replace("worst", "best"))
    assert_heard(second["alternatives"][0]["transcript"], halves[1] + halves[2])
    assert "Best" in first["alternatives"][0]["transcript"]
    assert [utterance["channel"] for utterance in answer["results"]["utterances"]] == [0, 1]
    assert first["search"][0]["hits"] == []
    (hit,) = second["search"][0]["hits"]
    assert hit["snippet"] == "age of wisdom"
    assert 5.6 < hit["start"] < hit["end"] < 9
    elsewhere, again = by_name["elsewhere"], by_name["granted again"]
    assert (elsewhere["status"], elsewhere["body"]["err_code"]) == (400, "REMOTE_CONTENT_ERROR")
    assert (again["status"], again["body"]["err_code"]) == (401, "INVALID_AUTH")


async def test_javascript_5_with_a_token(
    run_client: RunClient, keyed_mesh: ServedMesh, utterances_wav: Path
) -> None:
    granted, recording = await run_client(
        *("deepgram-js-5", "deepgram_grant.mjs", keyed_mesh.http_url, KEY, str(utterances_wav))
    )
    assert granted["answer"]["expires_in"] == 30
    results = recording["answer"]["results"]
    assert_heard(results["channels"][0]["alternatives"][0]["transcript"])


@pytest.mark.row("D6", "D7")
@pytest.mark.trap(2, 5, 11)
async def test_python_3_and_4(
    run_client: RunClient, keyed_mesh: ServedMesh, utterances: Path, utterances_wav: Path
) -> None:
    arguments = ("deepgram_old.py", keyed_mesh.http_url, str(utterances), str(utterances_wav))
    both = ("deepgram-3", "deepgram-4")
    for observed in await asyncio.gather(*(run_client(name, *arguments) for name in both)):
        check_old_python(observed)


def check_old_python(observed: Observed) -> None:
    whats = [line["what"] for line in observed]
    by_name = {line["what"]: line for line in observed}
    assert by_name["started"]["ok"]
    assert by_name["finished"]["ok"]
    assert not {"Error", "Unhandled"} & set(whats)
    messages = [line["message"] for line in observed if line["what"] in {"Results", "Metadata"}]
    for message in messages:
        message.setdefault("type", "Results")
    assert_transcribed(messages)
    answered = whats.index("Results", whats.index("finalizing"))
    assert answered < whats.index("finishing")
    assert observed[answered]["message"]["from_finalize"]
    # It closes the connection half a second after it has asked for the end.
    assert whats.index("finishing") < whats.index("Metadata") < whats.index("finished")
    results = by_name["recording"]["answer"]["results"]
    assert_heard(results["channels"][0]["alternatives"][0]["transcript"])
    assert results["channels"][0]["detected_language"] == "en"
    assert "corrupt or unsupported data" in by_name["garbage"]["message"]


def check_javascript(observed: Observed) -> None:
    whats = [line["what"] for line in observed]
    by_name = {line["what"]: line for line in reversed(observed)}
    assert "error" not in whats
    assert whats.count("open") == 1
    assert by_name["close"]["code"] == 1000
    messages = [line["message"] for line in observed if line["what"] == "message"]
    assert_transcribed(messages)
    assert {"SpeechStarted", "UtteranceEnd"} <= kinds(messages)
    assert messages[-1]["type"] == "Metadata"
    assert by_name["garbage"]["status"] == 400


@pytest.mark.row("D8")
@pytest.mark.trap(1, 3)
async def test_javascript(
    run_client: RunClient, keyed_mesh: ServedMesh, utterances: Path, utterances_wav: Path
) -> None:
    """The newest does not connect again; older ones use a package's WebSocket or a browser's."""
    arguments = (keyed_mesh.http_url, str(utterances), str(utterances_wav))
    older = ("deepgram-js-3", "deepgram-js-4")
    browser = {"NODE_OPTIONS": "--experimental-websocket"}
    newest, *observed = await asyncio.gather(
        run_client("deepgram-js-5", "deepgram_js.mjs", *arguments),
        *(run_client(name, "deepgram_js_old.mjs", *arguments) for name in older),
        *(run_client(name, "deepgram_js_old.mjs", *arguments, **browser) for name in older),
    )
    check_javascript(newest)
    by_name = {line["what"]: line for line in newest}
    assert by_name["counted"]["opened"] == 1
    assert_recorded(by_name["recording"]["answer"])
    for told in observed:
        check_javascript(told)
        by_name = {line["what"]: line for line in told}
        assert by_name["recording"]["error"] is None
        assert_recorded(by_name["recording"]["result"])
    assert all(told[0]["native"] for told in observed[2:])


def assert_recorded(answer: dict[str, Any]) -> None:
    assert_heard(answer["results"]["channels"][0]["alternatives"][0]["transcript"])


@pytest.mark.row("L1", "P1")
@pytest.mark.trap(4, 7, 11)
async def test_livekit_and_pipecat(
    run_client: RunClient, keyed_mesh: ServedMesh, utterances: Path
) -> None:
    arguments = (keyed_mesh.http_url, str(utterances))
    *livekit, pipecat = await asyncio.gather(
        run_client("livekit-deepgram", "livekit_deepgram.py", *arguments, "en-US"),
        run_client("livekit-deepgram", "livekit_deepgram.py", *arguments, "multi"),
        run_client("pipecat-deepgram", "pipecat_deepgram.py", *arguments),
    )
    for observed in livekit:
        check_livekit(observed)
    check_pipecat(pipecat)


def check_livekit(observed: Observed) -> None:
    """L1."""
    finals = [line for line in observed if line["what"] == "final_transcript"]
    assert_heard(" ".join(line["text"] for line in finals))
    assert {line["speaker"] for line in finals} == {"S0"}
    assert {"start_of_speech", "interim_transcript", "end_of_speech", "ended"} <= {
        line["what"] for line in observed
    }
    assert_heard(observed[-1]["text"])


def check_pipecat(observed: Observed) -> None:
    """P1."""
    assert {line["what"] for line in observed} == {
        "TranscriptionFrame",
        "InterimTranscriptionFrame",
    }
    finals = [line for line in observed if line["what"] == "TranscriptionFrame"]
    assert_heard(" ".join(f["text"] for f in finals), SAID.partition(", it was the age")[0])
    assert any(final["finalized"] for final in finals)


@pytest.mark.trap(7)
async def test_pipecat_knows_every_language_that_it_may_be_told(run_client: RunClient) -> None:
    """One that it does not know would cost it all of its transcripts."""
    known = {line["code"] for line in await run_client("pipecat-deepgram", "pipecat_languages.py")}
    assert {iso_code(code) for code in NAMES} <= known


@pytest.mark.row("W2", "W3")
@pytest.mark.trap(11)
@pytest.mark.parametrize(
    ("query", "frame_bytes"), [("", 32_000), ("&encoding=linear16&sample_rate=16000", 32_001)]
)
async def test_a_file_that_is_streamed_whole(
    keyed_mesh: ServedMesh, utterances_wav: Path, query: str, frame_bytes: int
) -> None:
    recording = await asyncio.to_thread(utterances_wav.read_bytes)
    url = f"{keyed_mesh.ws_url}/v1/listen?token={KEY}{query}"
    async with connect(url, proxy=None) as socket:
        for start in range(0, len(recording), frame_bytes):
            await socket.send(recording[start : start + frame_bytes])
        await socket.send('{"type":"CloseStream"}')
        async with asyncio.timeout(60):
            messages = [json.loads(data) async for data in socket]
    assert_transcribed(messages)
    assert socket.close_code == 1000
