"""A telephone call of two people: SDKs see who says what of it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import ServedMesh
from tests.mesh.asr import pcm_of, silence
from tests.mesh.test_speakers import DIANE_S, SHEILA_S
from tests.protocols.conftest import KEY, Observed, RunClient, write_24k

SPEED = "3"
"""Seconds of audio that a program plays in a second."""
TRANSCRIPTION = "conversation.item.input_audio_transcription"

Told = tuple[object, float, float]
"""A speaker, and from when to when they said something, in seconds."""


def check(told: Iterable[Told]) -> None:
    """Nearly all of what each of the two says alone is said by one, and by another one each."""
    diane, sheila = shares(told := list(told), DIANE_S), shares(told, SHEILA_S)
    first, second = max(diane, key=diane.__getitem__), max(sheila, key=sheila.__getitem__)
    assert first != second
    heard_s = sum(diane.values()) + sum(sheila.values())
    assert heard_s > 8
    assert diane[first] + sheila[second] >= 0.85 * heard_s, (diane, sheila)


def shares(told: Iterable[Told], spans_s: Iterable[tuple[float, float]]) -> dict[object, float]:
    """How much each says within some spans, in seconds."""
    found: defaultdict[object, float] = defaultdict(float)
    for speaker, start_s, end_s in told:
        for low_s, high_s in spans_s:
            found[speaker] += max(0.0, min(end_s, high_s) - max(start_s, low_s))
    return found


@pytest.mark.row("D1", "R1", "O1", "O2")
async def test_sdks_see_who_says_what_on_the_telephone(
    run_client: RunClient, keyed_mesh: ServedMesh, speech: Path, tmp_path: Path
) -> None:
    call, url = speech / "sample.wav", keyed_mesh.http_url
    pcm = tmp_path / "16k.pcm"
    pcm.write_bytes(pcm_of(call))
    # What the program commits itself is the silence.
    audio = write_24k(tmp_path / "24k.pcm", pcm_of(call) + silence(3))
    # One after the other: each plays as fast as two cores can follow.
    observed = await run_client(
        *("deepgram-7", "deepgram_live.py", url, str(pcm), SPEED, "encoding=linear16"),
        *("sample_rate=16000", "model=nova-3", "language=en", "diarize=true"),
    )
    check(deepgrams(observed))
    check(rivas(await run_client("riva", "riva_asr.py", keyed_mesh.grpc_target, str(call))))
    openai = ("openai-3", "openai_rest.py", f"{url}/v1", KEY, str(call), "diarize")
    check_recordings(await run_client(*openai))
    live = ("openai-3", "openai_realtime.py", f"{url}/v1", KEY, str(audio), "speakers")
    check_realtime(await run_client(*live))


def deepgrams(observed: Observed) -> list[Told]:
    results = [line["message"] for line in observed if line.get("class") == "ListenV1Results"]
    words = [
        word
        for result in results
        if result["is_final"]
        for word in result["channel"]["alternatives"][0]["words"]
    ]
    return [(word["speaker"], word["start"], word["end"]) for word in words]


def rivas(observed: Observed) -> list[Told]:
    results = [
        result
        for line in observed
        if line["what"] == "streamed"
        for result in line["results"]
        if result["is_final"]
    ]
    words = [word for result in results for word in result["alternatives"][0]["words"]]
    return [
        (word["speaker_tag"], word["start_time"] / 1000, word["end_time"] / 1000) for word in words
    ]


def check_recordings(observed: Observed) -> None:
    answers = {line["what"]: line["answer"] for line in observed}
    whole = answers["diarized_json"]["segments"]
    events = [line["answer"] for line in observed if line["what"] == "speakers"]
    streamed = [event for event in events if event["type"] == "transcript.text.segment"]
    for segments in (whole, streamed):
        check((segment["speaker"], segment["start"], segment["end"]) for segment in segments)
    shown = re.findall(r"-->.*\n(Speaker \d): ", answers["srt"])
    assert set(shown) == {"Speaker 1", "Speaker 2"}


def check_realtime(observed: Observed) -> None:
    segments = [event for event in observed if event["type"] == f"{TRANSCRIPTION}.segment"]
    kinds = {segment["what"] for segment in segments}
    assert kinds == {"ConversationItemInputAudioTranscriptionSegment"}
    check((segment["speaker"], segment["start"], segment["end"]) for segment in segments)
    for item in observed:
        if item["type"] == f"{TRANSCRIPTION}.completed":
            mine = [one["text"] for one in segments if one["item_id"] == item["item_id"]]
            assert " ".join(mine) == item["transcript"].strip()
