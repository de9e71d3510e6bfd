"""O2, O3, O4, V1, R2, L2, P2: clients of ``/v1/realtime`` against the real mesh, with keys."""

import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, AudioResampler

from tests.certificates import Authority
from tests.conftest import ServedMesh
from tests.gateway.fakes import write_keys
from tests.mesh.asr import BECKETT, pcm_of, silence
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import Observed, RunClient

KEY = "a-key-of-alice"
TRANSCRIPTION = "conversation.item.input_audio_transcription"

OwnMesh = Callable[..., AbstractContextManager[ServedMesh]]


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One key is known to the meshes of these tests."""
    path = write_keys(tmp_path_factory.mktemp("keys") / "keys", {"alice": KEY})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEWAY_KEYS_FILE", str(path))
        yield path


@pytest.fixture(scope="module")
def mesh(keys_file: Path, own_mesh: OwnMesh) -> Iterator[ServedMesh]:
    with own_mesh("tiny.en") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def spoken(speech: Path) -> bytes:
    """Utterances with pauses between them, and silence at the end; 16 kHz PCM."""
    return pcm_of(speech / "beckett.wav") + silence(3)


@pytest.fixture
def spoken_24k(spoken: bytes, tmp_path: Path) -> Path:
    resampler = AudioResampler(format="s16", layout="mono", rate=24_000)
    frame = AudioFrame.from_ndarray(np.frombuffer(spoken, "<i2")[np.newaxis], "s16", "mono")
    frame.sample_rate = 16_000
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    path = tmp_path / "24k.pcm"
    path.write_bytes(b"".join(frame.to_ndarray().tobytes() for frame in frames))
    return path


def of(observed: Observed, kind: str) -> list[dict[str, Any]]:
    return [event for event in observed if event["type"] == kind]


def transcripts(observed: Observed) -> list[str]:
    """Of the items that are complete, in their order; their deltas make them."""
    texts = []
    for item in of(observed, f"{TRANSCRIPTION}.completed"):
        deltas = of(observed, f"{TRANSCRIPTION}.delta")
        mine = [delta["delta"] for delta in deltas if delta["item_id"] == item["item_id"]]
        assert "".join(mine) == item["transcript"]
        texts.append(item["transcript"])
    return texts


@pytest.mark.parametrize("version", ["3", "2", "1"])
async def test_openais_sdk_hears_of_turns_and_may_end_them(
    mesh: ServedMesh, spoken_24k: Path, run_client: RunClient, version: str
) -> None:
    """O2, and of the beta, which the oldest speaks too, O3."""
    runs = ("turns", "commits", "beta") if version == "1" else ("turns", "commits")
    observed = await run_client(
        f"openai-{version}",
        "openai_realtime.py",
        f"{mesh.http_url}/v1",
        KEY,
        str(spoken_24k),
        *runs,
    )
    assert all(event["event_id"] for event in observed)
    check = {"turns": check_turns, "commits": check_commits, "beta": check_beta}
    for run in runs:
        check[run]([event for event in observed if event["run"] == run])


def check_turns(observed: Observed) -> None:
    assert observed[0]["type"] == "session.created"
    [updated] = of(observed, "session.updated")
    assert updated["session"]["type"] == "transcription"
    assert of(observed, "error") == []
    kinds = [f"input_audio_buffer.{kind}" for kind in ("speech_started", "speech_stopped")]
    kinds += ["input_audio_buffer.committed", f"{TRANSCRIPTION}.completed"]
    items = [[event["item_id"] for event in of(observed, kind)] for kind in kinds]
    assert items[0] == items[1] == items[2] == items[3]
    assert len(set(items[0])) == len(items[0]) > 1
    for item_id in items[0]:
        mine = [event["type"] for event in observed if event.get("item_id") == item_id]
        assert [kind for kind in mine if kind in kinds] == kinds
    assert len(of(observed, "conversation.item.added")) == len(items[0])
    for completed in of(observed, f"{TRANSCRIPTION}.completed"):
        assert completed["what"] == "ConversationItemInputAudioTranscriptionCompletedEvent"
        assert completed["usage"]["seconds"] > 0
        assert completed["content_index"] == 0
        assert "".join(token["token"] for token in completed["logprobs"]) == completed["transcript"]
    assert_same_words(BECKETT, " ".join(transcripts(observed)))


def check_commits(observed: Observed) -> None:
    assert observed[0]["type"] == "session.created"
    assert of(observed, "session.updated")[0]["session"]["audio"]["input"]["turn_detection"] is None
    assert of(observed, "input_audio_buffer.speech_started") == []
    assert len(of(observed, "input_audio_buffer.cleared")) == 1
    [error] = of(observed, "error")
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    whole, again = transcripts(observed)
    assert_same_words(BECKETT, whole)
    assert "tried" in again.lower()


def check_beta(observed: Observed) -> None:
    assert observed[0]["type"] == "transcription_session.created"
    assert of(observed, "transcription_session.updated")
    assert of(observed, "conversation.item.created")
    assert of(observed, "error") == []
    committed = of(observed, "input_audio_buffer.committed")
    completed = of(observed, f"{TRANSCRIPTION}.completed")
    assert [item["item_id"] for item in committed] == [item["item_id"] for item in completed]
    assert_same_words(BECKETT, " ".join(transcripts(observed)))


async def test_openais_sdk_for_javascript_connects_with_tls(
    keys_file: Path, own_mesh: OwnMesh, spoken_24k: Path, run_client: RunClient, tmp_path: Path
) -> None:
    """O4."""
    authority = Authority(tmp_path)
    pair = authority.issue("gateway")
    options = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with own_mesh("tiny.en", *options) as mesh:
        observed = await run_client(
            "openai-js",
            "openai_realtime.mjs",
            f"https://localhost:{mesh.port}/v1",
            KEY,
            str(spoken_24k),
            NODE_EXTRA_CA_CERTS=str(authority.file),
        )
    assert observed[0]["type"] == "session.created"
    assert of(observed, "error") == []
    assert_same_words(BECKETT, " ".join(transcripts(observed)))


async def test_vllms_example_gets_its_text(
    mesh: ServedMesh, spoken: bytes, run_client: RunClient, tmp_path: Path
) -> None:
    """V1."""
    audio = tmp_path / "16k.pcm"
    audio.write_bytes(spoken)
    url = f"{mesh.ws_url}/v1/realtime"
    observed = await run_client("openai-3", "vllm_realtime.py", url, KEY, str(audio))
    assert observed[0]["type"] == "session.created"
    assert observed[0]["id"]
    assert of(observed, "error") == []
    [done] = of(observed, "transcription.done")
    deltas = of(observed, "transcription.delta")
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert_same_words(BECKETT, done["text"])


async def test_nvidias_realtime_client_gets_everything_in_its_last_result(
    mesh: ServedMesh, spoken: bytes, run_client: RunClient, tmp_path: Path
) -> None:
    """R2."""
    file = tmp_path / "16k.wav"
    with wave.open(str(file), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(spoken)
    server = f"127.0.0.1:{mesh.port}"
    [observed] = await run_client("riva-realtime", "riva_realtime.py", server, KEY, str(file))
    assert observed["updated"]
    assert_same_words(BECKETT, observed["final_transcript"])


async def test_livekits_plugin_reads_recordings_and_hears_of_turns(
    mesh: ServedMesh, spoken_24k: Path, run_client: RunClient
) -> None:
    """L2, and L2b: no turn is cut twice, by the plugin and by the gateway."""
    observed = await run_client(
        "livekit-openai", "livekit_openai.py", f"{mesh.http_url}/v1", KEY, str(spoken_24k)
    )
    for what in ("recognised", "final_transcript"):
        told = [event for event in observed if event["what"] == what]
        models = {event["model"] for event in told}
        assert len(models) == 2
        for model in models:
            texts = [event["text"] for event in told if event["model"] == model]
            assert_same_words(BECKETT, " ".join(texts))
    turns = [event["what"] for event in observed if event["model"] == "gpt-transcribe"]
    assert {"start_of_speech", "end_of_speech", "interim_transcript"} <= set(turns)
    own = [event["what"] for event in observed if event["model"] == "gpt-realtime-whisper"]
    assert own.count("final_transcript") <= own.count("end_of_speech")


async def test_pipecat_gets_frames_of_text_and_none_of_errors(
    mesh: ServedMesh, spoken_24k: Path, run_client: RunClient
) -> None:
    """P2."""
    url = f"{mesh.ws_url}/v1/realtime"
    observed = await run_client("pipecat-openai", "pipecat_openai.py", url, KEY, str(spoken_24k))
    for mode in ("own_vad", "server_vad"):
        told = [frame for frame in observed if frame["mode"] == mode]
        kinds = {frame["what"] for frame in told}
        assert kinds == {"InterimTranscriptionFrame", "TranscriptionFrame"}
        finals = [frame["text"] for frame in told if frame["what"] == "TranscriptionFrame"]
        assert_same_words(BECKETT, " ".join(finals))
