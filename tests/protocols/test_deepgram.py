"""Deepgram's SDKs, unmodified: live streams and recordings. D1 to D8 are rows of the matrix."""

import asyncio
import json
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from tests.conftest import ServedMesh
from tests.gateway.fakes import write_keys
from tests.mesh.asr import BYTES_PER_S, pcm_of, silence
from tests.mesh.wording import difference
from tests.protocols.conftest import Observed, RunClient

SAID = (
    "It was the best of times, it was the worst of times,"
    " it was the age of wisdom, it was the age of foolishness,"
)
SPEED = "4"
KEY = "a-key-of-alice"
Message = dict[str, Any]
OwnMesh = Callable[..., AbstractContextManager[ServedMesh]]


@pytest.fixture(scope="session")
def pcm(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Path:
    """Two utterances, 2 s of silence between them and 4 s behind them."""
    read = pcm_of(speech / "two_cities.wav")
    cut, end = (round(at_s * BYTES_PER_S) for at_s in (4.6, 8.6))
    path = tmp_path_factory.mktemp("deepgram") / "utterances.pcm"
    path.write_bytes(read[:cut] + silence(2) + read[cut:end] + silence(4))
    return path


@pytest.fixture(scope="session")
def wav(pcm: Path) -> Path:
    """The same as a file."""
    path = pcm.with_suffix(".wav")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm.read_bytes())
    return path


def assert_heard(text: str, said: str = SAID) -> None:
    """Nothing is missing and nothing is said twice; in so few words, one may be misread."""
    found = difference(said, text)
    assert found.longest_lost <= 1, found
    assert found.longest_added <= 1, found
    assert found.wer_percent < 10, found


def transcript(result: Message) -> str:
    return str(result["channel"]["alternatives"][0]["transcript"])


def finals_of(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["type"] == "Results" and m["is_final"]]


def assert_transcribed(messages: list[Message]) -> None:
    """Everything that was said is final once, and finals tile the audio."""
    finals = finals_of(messages)
    assert_heard(" ".join(map(transcript, finals)))
    for before, after in pairwise(finals):
        assert after["start"] == pytest.approx(before["start"] + before["duration"], abs=0.05)
    for result in finals:
        assert result["metadata"]["request_id"]
        assert result["metadata"]["model_info"]["name"]


def kinds(messages: list[Message]) -> set[str]:
    return {message["type"] for message in messages}


async def test_python_7_live(run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path) -> None:
    """D1."""
    observed = await run_client(
        *("deepgram-7", "deepgram_live.py", mesh_tiny.http_url, str(pcm), SPEED),
        *("model=nova-3", "language=en-US", "encoding=linear16", "sample_rate=16000"),
        *("interim_results=true", "smart_format=true", "punctuate=true", "endpointing=300"),
        *("utterance_end_ms=1000", "vad_events=true", "diarize=true", "numerals=true"),
        *("keyterm=epoch", "keyterm=belief", "tag=a", "tag=b", "extra=k:v", "mip_opt_out=true"),
    )
    *events, closed, listened = observed
    assert (closed["event"], listened["event"]) == ("close", "listened")
    assert {event["event"] for event in events} == {"message"}
    assert {event["class"] for event in events} == {
        f"ListenV1{kind}" for kind in ("Results", "Metadata", "SpeechStarted", "UtteranceEnd")
    }
    messages = [event["message"] for event in events]
    assert_transcribed(messages)
    assert any(m["type"] == "Results" and not m["is_final"] for m in messages)
    assert "Finalize" in next(e for e in events if e["message"].get("from_finalize"))["asked"]
    assert messages[-1]["type"] == "Metadata"
    assert messages[-1]["extra"] == {"k": "v"}
    assert transcript(finals_of(messages)[0]).startswith("It")


async def test_python_7_without_a_word_of_farewell(
    run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path
) -> None:
    """D2."""
    *events, end = await run_client(
        "deepgram-7", "deepgram_leaving.py", mesh_tiny.http_url, str(pcm)
    )
    messages = [event["message"] for event in events]
    assert kinds(messages) == {"Results"}
    assert all(message["is_final"] for message in messages)
    assert any(map(transcript, messages))
    assert not end["alive"]


async def test_python_7_recordings(run_client: RunClient, mesh_tiny: ServedMesh, wav: Path) -> None:
    """D3. No host is listed that URLs may lead to: they are refused."""
    observed = await run_client("deepgram-7", "deepgram_rest.py", mesh_tiny.http_url, str(wav))
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
    assert results["channels"][0]["alternatives"][0]["paragraphs"]["paragraphs"]
    for name in ("garbage", "url"):
        assert by_name[name]["status"] == 400
        assert {"err_code", "err_msg", "request_id"} <= by_name[name]["body"].keys()
    assert by_name["models"]["answer"]["stt"][0]["name"] == "tiny.en"


@pytest.fixture(scope="module")
def keyed_mesh(wav: Path, own_mesh: OwnMesh) -> Iterator[tuple[ServedMesh, str]]:
    """A mesh that knows a key and fetches recordings from one host, and that of a recording."""
    handler = partial(SimpleHTTPRequestHandler, directory=wav.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        keys_file = write_keys(wav.parent / "keys", {"alice": KEY})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GATEWAY_KEYS_FILE", str(keys_file))
            patch.setenv("GATEWAY_FETCH_HOSTS", json.dumps([host]))
            with own_mesh("tiny.en") as mesh:
                yield mesh, f"{host}/{wav.name}"
        server.shutdown()


@pytest.fixture(scope="session")
def stereo(pcm: Path) -> Path:
    """The first of the utterances on one channel, the second one on the other."""
    samples = np.frombuffer(pcm.read_bytes(), "<i2")
    channels = np.zeros((len(samples), 2), "<i2")
    cut = round(5.6 * 16_000)
    channels[:cut, 0], channels[cut:, 1] = samples[:cut], samples[cut:]
    path = pcm.with_name("stereo.wav")
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(channels.tobytes())
    return path


async def test_python_7_with_a_token(
    run_client: RunClient, keyed_mesh: tuple[ServedMesh, str], stereo: Path
) -> None:
    """D3: URLs and channels, for who has a token."""
    mesh, recording_url = keyed_mesh
    observed = await run_client(
        *("deepgram-7", "deepgram_grant.py", mesh.http_url, KEY, recording_url, str(stereo))
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
    run_client: RunClient, keyed_mesh: tuple[ServedMesh, str], wav: Path
) -> None:
    mesh, _ = keyed_mesh
    granted, recording = await run_client(
        *("deepgram-js-5", "deepgram_grant.mjs", mesh.http_url, KEY, str(wav))
    )
    assert granted["answer"]["expires_in"] == 30
    results = recording["answer"]["results"]
    assert_heard(results["channels"][0]["alternatives"][0]["transcript"])


async def test_python_5_live(run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path) -> None:
    """D5."""
    observed = await run_client(
        *("deepgram-5", "deepgram_live.py", mesh_tiny.http_url, str(pcm), SPEED),
        *("model=nova-3", "language=multi", "encoding=linear16", "sample_rate=16000"),
        *("endpointing=100", "vad_events=true", "keyterm=epoch", "keyterm=belief"),
    )
    *events, closed, listened = observed
    assert (closed["event"], listened["event"]) == ("close", "listened")
    assert {event["class"] for event in events} == {
        f"ListenV1{kind}Event" for kind in ("Results", "Metadata", "SpeechStarted")
    }
    messages = [event["message"] for event in events]
    assert_transcribed(messages)
    for result in finals_of(messages):
        assert result["channel"]["alternatives"][0]["languages"] == ["en"]


async def test_python_3_and_4(
    run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path, wav: Path
) -> None:
    """D6, D7."""
    arguments = ("deepgram_old.py", mesh_tiny.http_url, str(pcm), str(wav))
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


async def test_javascript_5(
    run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path, wav: Path
) -> None:
    """D8: it does not connect again."""
    observed = await run_client(
        "deepgram-js-5", "deepgram_js.mjs", mesh_tiny.http_url, str(pcm), str(wav)
    )
    check_javascript(observed)
    by_name = {line["what"]: line for line in observed}
    assert by_name["counted"]["opened"] == 1
    results = by_name["recording"]["answer"]["results"]
    assert_heard(results["channels"][0]["alternatives"][0]["transcript"])


@pytest.mark.parametrize("environment", ["deepgram-js-3", "deepgram-js-4"])
@pytest.mark.parametrize("native", [False, True])
async def test_javascript_3_and_4(
    run_client: RunClient,
    mesh_tiny: ServedMesh,
    pcm: Path,
    wav: Path,
    environment: str,
    native: bool,
) -> None:
    """D8, with the WebSocket of a package and with one that browsers have."""
    variables = {"NODE_OPTIONS": "--experimental-websocket"} if native else {}
    observed = await run_client(
        environment,
        "deepgram_js_old.mjs",
        *(mesh_tiny.http_url, str(pcm), str(wav)),
        **variables,
    )
    check_javascript(observed)
    by_name = {line["what"]: line for line in observed}
    assert by_name["global"]["native"] or not native
    assert by_name["recording"]["error"] is None
    results = by_name["recording"]["result"]["results"]
    assert_heard(results["channels"][0]["alternatives"][0]["transcript"])


async def test_livekit(run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path) -> None:
    """L1."""
    arguments = ("livekit-deepgram", "livekit_deepgram.py", mesh_tiny.http_url, str(pcm))
    for observed in await asyncio.gather(
        *(run_client(*arguments, language) for language in ("en-US", "multi"))
    ):
        texts = [line["text"] for line in observed if line["what"] == "final_transcript"]
        assert_heard(" ".join(texts))
        assert {"start_of_speech", "interim_transcript", "end_of_speech", "ended"} <= {
            line["what"] for line in observed
        }
        assert_heard(observed[-1]["text"])


async def test_pipecat(run_client: RunClient, mesh_tiny: ServedMesh, pcm: Path) -> None:
    """P1."""
    observed = await run_client(
        "pipecat-deepgram", "pipecat_deepgram.py", mesh_tiny.http_url, str(pcm)
    )
    assert {line["what"] for line in observed} == {
        "TranscriptionFrame",
        "InterimTranscriptionFrame",
    }
    finals = [line for line in observed if line["what"] == "TranscriptionFrame"]
    assert_heard(" ".join(f["text"] for f in finals), SAID.partition(", it was the age")[0])
    assert any(final["finalized"] for final in finals)


@pytest.mark.parametrize(
    ("query", "frame_bytes"), [("", 32_000), ("encoding=linear16&sample_rate=16000", 32_001)]
)
async def test_a_file_that_is_streamed_whole(
    mesh_tiny: ServedMesh, wav: Path, query: str, frame_bytes: int
) -> None:
    """W2, W3."""
    recording = await asyncio.to_thread(wav.read_bytes)
    async with connect(f"{mesh_tiny.ws_url}/v1/listen?{query}", proxy=None) as socket:
        for start in range(0, len(recording), frame_bytes):
            await socket.send(recording[start : start + frame_bytes])
        await socket.send('{"type":"CloseStream"}')
        async with asyncio.timeout(60):
            messages = [json.loads(data) async for data in socket]
    assert_transcribed(messages)
    assert socket.close_code == 1000
