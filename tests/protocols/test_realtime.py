"""Clients of ``/v1/realtime`` against the real mesh."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServedMesh
from tests.mesh.asr import BECKETT
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import KEY, Observed, RunClient, write_wav

TRANSCRIPTION = "conversation.item.input_audio_transcription"


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


@pytest.mark.row("O2", "O3")
@pytest.mark.trap(9)
async def test_openais_sdk_hears_of_turns_and_may_end_them(
    keyed_mesh: ServedMesh, spoken_24k: Path, run_client: RunClient
) -> None:
    """The oldest speaks the beta too."""
    url, audio = f"{keyed_mesh.http_url}/v1", str(spoken_24k)
    arguments = ("openai_realtime.py", url, KEY, audio, "turns", "commits")
    newest, newer, oldest = await asyncio.gather(
        run_client("openai-3", *arguments),
        run_client("openai-2", *arguments),
        run_client("openai-1", *arguments, "beta"),
    )
    for observed in (newest, newer, oldest):
        assert all(event["event_id"] for event in observed)
        check_turns(of_run("turns", observed))
        check_commits(of_run("commits", observed))
    check_beta(of_run("beta", oldest))


def of_run(run: str, observed: Observed) -> Observed:
    return [event for event in observed if event["run"] == run]


def check_turns(observed: Observed) -> None:
    assert observed[0]["type"] == "session.created"
    [updated] = of(observed, "session.updated")
    assert updated["session"]["type"] == "transcription"
    assert of(observed, "error") == []
    kinds = [f"input_audio_buffer.{kind}" for kind in ("speech_started", "speech_stopped")]
    kinds += ["input_audio_buffer.committed", f"{TRANSCRIPTION}.completed"]
    started, stopped, committed, completed = (
        [event["item_id"] for event in of(observed, kind)] for kind in kinds
    )
    assert committed == completed
    *turns, silence = committed
    assert turns == started == stopped
    assert len(set(committed)) == len(committed) > 2
    for item_id in turns:
        mine = [event["type"] for event in observed if event.get("item_id") == item_id]
        assert [kind for kind in mine if kind in kinds] == kinds
    assert len(of(observed, "conversation.item.added")) == len(committed)
    for item in of(observed, f"{TRANSCRIPTION}.completed"):
        assert item["what"] == "ConversationItemInputAudioTranscriptionCompletedEvent"
        assert item["usage"]["seconds"] > 0
        assert item["content_index"] == 0
        assert "".join(token["token"] for token in item["logprobs"]) == item["transcript"]
        assert bool(item["transcript"]) is (item["item_id"] != silence)
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


@pytest.mark.row("V1")
@pytest.mark.trap(9, 12)
async def test_vllms_example_gets_its_text(
    keyed_mesh: ServedMesh, spoken: bytes, run_client: RunClient, tmp_path: Path
) -> None:
    audio = tmp_path / "16k.pcm"
    audio.write_bytes(spoken)
    url = f"{keyed_mesh.ws_url}/v1/realtime"
    observed = await run_client("openai-3", "vllm_realtime.py", url, KEY, str(audio))
    assert observed[0]["type"] == "session.created"
    assert observed[0]["id"]
    assert of(observed, "error") == []
    [done] = of(observed, "transcription.done")
    deltas = of(observed, "transcription.delta")
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert_same_words(BECKETT, done["text"])


@pytest.mark.row("R2")
@pytest.mark.trap(12)
async def test_nvidias_realtime_client_gets_everything_in_its_last_result(
    keyed_mesh: ServedMesh, spoken: bytes, run_client: RunClient, tmp_path: Path
) -> None:
    file = write_wav(tmp_path / "16k.wav", spoken)
    server = f"127.0.0.1:{keyed_mesh.port}"
    [observed] = await run_client("riva-realtime", "riva_realtime.py", server, KEY, str(file))
    assert observed["updated"]
    assert_same_words(BECKETT, observed["final_transcript"])


@pytest.mark.row("L2", "L2b", "P2")
@pytest.mark.trap(9)
async def test_livekit_and_pipecat_converse(
    keyed_mesh: ServedMesh, spoken_24k: Path, run_client: RunClient
) -> None:
    audio = str(spoken_24k)
    livekit, pipecat = await asyncio.gather(
        run_client("livekit-openai", "livekit_openai.py", f"{keyed_mesh.http_url}/v1", KEY, audio),
        run_client(
            *("pipecat-openai", "pipecat_openai.py", f"{keyed_mesh.ws_url}/v1/realtime", KEY, audio)
        ),
    )
    check_livekit(livekit)
    check_pipecat(pipecat)


def check_livekit(observed: Observed) -> None:
    """L2, and L2b: no turn is cut twice, by the plugin and by the gateway."""
    for what in ("recognised", "final_transcript"):
        told = [event for event in observed if event["what"] == what]
        models = {event["model"] for event in told}
        assert len(models) == 2
        for model in models:
            texts = [event["text"] for event in told if event["model"] == model]
            assert_same_words(BECKETT, " ".join(texts))
    recognised = [event for event in observed if event["what"] == "recognised"]
    assert {event["language"] for event in recognised} == {"en"}
    turns = [event["what"] for event in observed if event["model"] == "gpt-transcribe"]
    assert {"start_of_speech", "end_of_speech", "interim_transcript"} <= set(turns)
    own = [event["what"] for event in observed if event["model"] == "gpt-realtime-whisper"]
    assert own.count("final_transcript") <= own.count("end_of_speech")


def check_pipecat(observed: Observed) -> None:
    """P2: in one mode it says itself when somebody has spoken, in the other it is told."""
    for mode in ("own_vad", "server_vad"):
        told = [frame for frame in observed if frame["mode"] == mode]
        kinds = {frame["what"] for frame in told}
        assert kinds == {"InterimTranscriptionFrame", "TranscriptionFrame"}
        finals = [frame["text"] for frame in told if frame["what"] == "TranscriptionFrame"]
        assert_same_words(BECKETT, " ".join(finals))
