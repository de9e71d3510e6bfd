"""``/asr`` over plain WebSockets, and WhisperLiveKit's own page and test client."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import ServedMesh
from tests.mesh.asr import BECKETT, SILENCE, Message, Watched, pcm_of, silence, watch
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import KEY, RunClient, assert_heard, environment_of

STATE_FIELDS = {
    *("status", "lines"),
    *("buffer_transcription", "buffer_diarization", "buffer_translation"),
    "remaining_time_transcription",
    "remaining_time_transcription_processing",
    "remaining_time_transcription_policy",
    "remaining_time_diarization",
}
CLOCK = re.compile(r"\d+:[0-5]\d:[0-5]\d\.\d\d")
QUERY = f"language=en&token={KEY}"


def assert_states_are_whole(states: list[Message]) -> None:
    for state in states:
        assert state.keys() - {"type", "seq"} == STATE_FIELDS
        for line in state["lines"]:
            assert line.keys() == {"speaker", "text", "start", "end"}
            assert CLOCK.fullmatch(line["start"])
            assert CLOCK.fullmatch(line["end"])


@pytest.mark.row("A1")
async def test_every_message_of_full_mode_shows_everything(
    keyed_mesh: ServedMesh, spoken: bytes
) -> None:
    watched = await watch(keyed_mesh.ws_url, spoken, query=f"{QUERY}&mode=full", speed=8)
    config, *states, end = watched.messages
    assert config == {"type": "config", "useAudioWorklet": True, "mode": "full"}
    assert end == {"type": "ready_to_stop"}
    assert_states_are_whole(states)
    assert states[-1]["buffer_transcription"] == ""
    assert_same_words(BECKETT, watched.text)


@pytest.mark.row("A2")
@pytest.mark.trap(13)
async def test_diffs_make_the_transcript_while_its_last_line_grows(
    keyed_mesh: ServedMesh, speech: Path
) -> None:
    read = pcm_of(speech / "two_cities.wav")
    first, second = read[: 2 * 73_600], read[2 * 73_600 : 2 * 137_600]
    played = silence(6) + first + silence(6) + second
    watched = await watch(keyed_mesh.ws_url, played, query=f"{QUERY}&mode=diff")
    _, snapshot, *diffs, _ = watched.messages
    assert snapshot["type"] == "snapshot"
    assert_states_are_whole([snapshot])
    assert (snapshot["status"], snapshot["lines"]) == ("no_audio_detected", [])
    assert [diff["type"] for diff in diffs] == ["diff"] * len(diffs)
    assert [diff["seq"] for diff in diffs] == list(range(2, len(diffs) + 2))
    seen = list(rebuilt([snapshot, *diffs]))
    assert all(len(lines) == diff["n_lines"] for lines, diff in zip(seen[1:], diffs, strict=True))
    later = [lines[-1]["text"] for lines in seen if len(lines) > 1 and lines[-1]["text"]]
    assert len(set(later)) > 1, "the last of several lines never grew"
    assert_heard(" ".join(line["text"] for line in seen[-1] if line["speaker"] != SILENCE))


def rebuilt(messages: list[Message]) -> Iterator[list[Message]]:
    """The lines after each message, by the rule in the gateway's README."""
    client = Watched()
    for message in messages:
        client.take_all([message])
        yield client.lines


@pytest.mark.row("A3")
async def test_a_wrong_token_is_refused_before_the_upgrade(keyed_mesh: ServedMesh) -> None:
    for query in ("", "token=wrong", "language=en&token="):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{keyed_mesh.ws_url}/asr?{query}", proxy=None):
                pass
        assert refused.value.response.status_code == 401


@pytest.mark.row("A3")
async def test_an_unsupported_language_is_an_error_and_a_close(keyed_mesh: ServedMesh) -> None:
    async with connect(f"{keyed_mesh.ws_url}/asr?language=de&token={KEY}", proxy=None) as socket:
        error = json.loads(await socket.recv())
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert (error["type"], "de" in error["error"]) == ("error", True)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


@pytest.mark.row("A3")
async def test_what_clients_send_besides_audio_and_behind_its_end_does_no_harm(
    keyed_mesh: ServedMesh, spoken: bytes
) -> None:
    async with (
        asyncio.timeout(60),
        connect(f"{keyed_mesh.ws_url}/asr?{QUERY}", proxy=None) as socket,
    ):
        for start in range(0, len(spoken), 3331):
            await socket.send(spoken[start : start + 3331])
        await socket.send("hello")
        for data in (b"", spoken[:3200], b""):
            await socket.send(data)
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1].get("type") != "ready_to_stop":
            messages.append(json.loads(await socket.recv()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.2)  # nothing comes any more
    lines = messages[-2]["lines"]
    assert_same_words(BECKETT, " ".join(line["text"] for line in lines))


@pytest.mark.row("A4")
@pytest.mark.trap(6)
async def test_whisperlivekits_page_shows_what_was_said_and_never_blanks_it(
    keyed_mesh: ServedMesh, spoken: bytes, tmp_path: Path, run_client: RunClient
) -> None:
    (web,) = environment_of("wlk").glob("lib/python*/site-packages/whisperlivekit/web")
    audio = tmp_path / "16k.pcm"
    audio.write_bytes(spoken)
    address = f"{keyed_mesh.ws_url}/asr?{QUERY}"
    *observed, status = await run_client("wlk-page", "wlk_page.mjs", str(web), address, str(audio))
    assert [line for line in observed if line["what"] == "complaint"] == []
    texts = [line["text"] for line in observed]
    first = next(number for number, text in enumerate(texts) if text)
    assert all(texts[first:]), "it was blanked"
    assert len(set(texts)) > 2, "nothing was to be seen before the end"
    assert_same_words(BECKETT, texts[-1])
    assert status["text"] == "Finished processing audio! Ready to record again."


@pytest.mark.row("A4")
@pytest.mark.trap(13)
async def test_whisperlivekits_test_client_gets_every_word(
    keyed_mesh: ServedMesh, speech: Path, run_client: RunClient
) -> None:
    url, recording = f"{keyed_mesh.ws_url}/asr?token={KEY}", str(speech / "beckett.wav")
    arguments = ("--url", url, "--language", "en", "--speed", "8", "--json", recording)
    for states in await asyncio.gather(
        run_client("wlk", "wlk_test_client.py", *arguments),
        run_client("wlk", "wlk_test_client.py", *arguments, "--diff"),
    ):
        assert_same_words(BECKETT, " ".join(line["text"] for line in states[-1]["lines"]))
