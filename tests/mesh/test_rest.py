"""Recordings through OpenAI's REST API, with real models behind it."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import TWO_CITIES, ServedMesh
from tests.gateway.encode import encoded, offline
from tests.mesh.asr import Watched, pcm_of, watch
from tests.mesh.wording import difference

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."


@asynccontextmanager
async def client_of(mesh: ServedMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.http_url, trust_env=False, timeout=240) as client:
        yield client


async def transcribe(
    client: httpx.AsyncClient, file: bytes, *, task: str = "transcriptions", **fields: Any
) -> httpx.Response:
    answer = await client.post(
        f"/v1/audio/{task}",
        data={"model": "whisper-1"} | fields,
        files={"file": ("blob", file, "application/octet-stream")},
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "channels"),
    [
        ("wav", "pcm_s16le", 44100, 2),
        ("flac", "flac", 48000, 1),
        ("ogg", "libopus", 48000, 1),
        ("webm", "libopus", 48000, 2),
        ("mp3", "libmp3lame", 44100, 1),
        ("adts", "aac", 48000, 1),
        ("ipod", "aac", 44100, 2),
    ],
)
async def test_a_recording_in_any_format_becomes_what_was_said(
    mesh_tiny: ServedMesh, speech: Path, container: str, codec: str, rate_hz: int, channels: int
) -> None:
    samples = offline((speech / "beckett.wav").read_bytes())
    file = encoded(samples, container, codec, rate_hz=rate_hz, channels=channels)
    async with client_of(mesh_tiny) as client:
        body = (await transcribe(client, file, response_format="verbose_json")).json()
    assert difference(BECKETT, body["text"]).wer_percent <= 10
    assert body["duration"] == pytest.approx(len(samples) / 16000, abs=0.1)


async def test_a_longer_recording_is_whole_in_every_form_of_answer(
    mesh_tiny: ServedMesh, speech: Path
) -> None:
    file = (speech / "two_cities.wav").read_bytes()
    async with client_of(mesh_tiny) as client:
        text = (await transcribe(client, file, response_format="text")).text
        srt = (await transcribe(client, file, response_format="srt")).text
        verbose = await transcribe(
            client, file, response_format="verbose_json", timestamp_granularities="word"
        )
    check_text(text)
    check_verbose(verbose.json())
    check_srt(srt)


def check_text(text: str) -> None:
    found = difference(TWO_CITIES, text)
    assert found.wer_percent <= 10
    assert found.longest_lost <= 2
    assert found.longest_added <= 2


def check_verbose(body: dict[str, Any]) -> None:
    check_text(body["text"])
    assert body["language"] == "english"
    assert body["duration"] == pytest.approx(44.4, abs=0.1)
    assert "".join(segment["text"] for segment in body["segments"]) == body["text"]
    assert " ".join(word["word"] for word in body["words"]) == body["text"]
    for pieces in (body["segments"], body["words"]):
        starts = [piece["start"] for piece in pieces]
        assert starts == sorted(starts)
        assert all(0 <= piece["start"] <= piece["end"] <= body["duration"] for piece in pieces)
    for segment in body["segments"]:
        assert segment["tokens"]
        assert -1 < segment["avg_logprob"] < 0
        assert 0 <= segment["no_speech_prob"] < 0.6
        assert segment["end"] - segment["start"] <= 30


def check_srt(srt: str) -> None:
    shown: list[tuple[float, str]] = []
    for number, block in enumerate(srt.strip().split("\n\n"), 1):
        label, times, *lines = block.split("\n")
        assert int(label) == number
        assert len(lines) <= 2
        assert all(len(line) <= 42 for line in lines)
        start_s, end_s = map(seconds_of, times.split(" --> "))
        assert 0 < end_s - start_s <= 7
        assert not shown or shown[-1][0] <= start_s
        shown.append((end_s, " ".join(lines)))
    assert len(shown) >= 8
    check_text(" ".join(text for _, text in shown))


def seconds_of(clock: str) -> float:
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d),(\d{3})", clock)
    assert found is not None
    hours, minutes, seconds, ms = map(int, found.groups())
    return hours * 3600 + minutes * 60 + seconds + ms / 1000


async def test_silence_and_noise_hold_no_words(mesh_tiny: ServedMesh) -> None:
    noise = np.random.default_rng(1).normal(0, 300, 80_000).astype(np.int16)
    async with client_of(mesh_tiny) as client:
        for samples in (np.zeros(80_000, np.int16), noise):
            answer = await transcribe(client, encoded(samples, "wav", "pcm_s16le", rate_hz=16000))
            assert answer.json()["text"] == ""


async def test_a_bad_file_is_refused_and_the_next_one_served(
    mesh_tiny: ServedMesh, speech: Path
) -> None:
    file = (speech / "beckett.wav").read_bytes()
    async with client_of(mesh_tiny) as client:
        for bad in (b"", b"no audio " * 999, file[:30]):
            answer = await client.post("/v1/audio/transcriptions", files={"file": ("a.wav", bad)})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "file"
        answer = await client.post("/v1/audio/translations", files={"file": ("a.wav", file)})
        assert answer.json()["error"]["code"] == "unsupported_model"
        assert (await transcribe(client, file)).json()["text"]


def appearances(watched: Watched) -> list[float]:
    """How much audio had been sent when so many words were first to be seen."""
    seen: list[float] = []
    for state in watched.states:
        text = " ".join(line["text"] or "" for line in state.message["lines"])
        num_words = len(f"{text} {state.message['buffer_transcription']}".split())
        seen += [state.sent_s] * (num_words - len(seen))
    return seen


async def test_a_file_job_does_not_delay_who_speaks_now(
    mesh_tiny: ServedMesh, speech: Path
) -> None:
    """P6."""
    pcm = pcm_of(speech / "beckett.wav")
    query = "language=en&mode=full"
    alone = await watch(mesh_tiny.ws_url, pcm, query=query, speed=1)
    long = np.tile(offline((speech / "two_cities.wav").read_bytes()), 20)
    file = encoded(long, "flac", "flac", rate_hz=16000)
    answers_s = []

    async def probe(client: httpx.AsyncClient) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            asked = clock()
            await client.get("/v1/models")
            answers_s.append(clock() - asked)
            await asyncio.sleep(0.05)

    async with client_of(mesh_tiny) as client:
        job = asyncio.create_task(transcribe(client, file), name="test.job")
        await asyncio.sleep(1)  # for the upload to be in and its decoding to be under way
        probing = asyncio.create_task(probe(client), name="test.probe")
        beside = await watch(mesh_tiny.ws_url, pcm, query=query, speed=1)
        assert not job.done()
        probing.cancel()
        job.cancel()
        await asyncio.gather(job, probing, return_exceptions=True)
    assert difference(BECKETT, beside.text).wer_percent <= 10
    pairs = zip(appearances(alone), appearances(beside), strict=False)
    delays = sorted(later - sooner for sooner, later in itertools.islice(pairs, 12))
    assert len(delays) >= 10
    assert delays[len(delays) // 2] < 1
    assert delays[-1] < 3
    assert beside.ready_after_s < alone.ready_after_s + 3
    assert sorted(answers_s)[len(answers_s) * 95 // 100] < 0.3


async def test_german_is_detected_and_can_be_had_in_english(
    mesh_base: ServedMesh, shared_data: Path
) -> None:
    file = (shared_data / "fleurs" / "fleurs-de-000.ogg").read_bytes()
    async with client_of(mesh_base) as client:
        german = (await transcribe(client, file, response_format="verbose_json")).json()
        english = (await transcribe(client, file, task="translations")).json()
    assert (german["task"], german["language"]) == ("transcribe", "german")
    said = (
        "Für die besten Aussichten auf Hongkong sollten Sie die Insel verlassen und zum"
        " gegenüberliegenden Ufer von Kowloon fahren."
    )
    assert difference(said, german["text"], language_code="de").wer_percent <= 40
    assert {"the", "island"} <= set(english["text"].lower().split())
