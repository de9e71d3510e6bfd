"""Input that once broke something, or that is odd, and the answer that it gets."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from services.asr import checkpoint as asr_checkpoint
from services.cli.live import read_wav
from services.common.errors import CheckpointError
from services.diarizer import checkpoint as diarizer_checkpoint
from services.diarizer.engines.online_memory import parse
from services.gateway.app import create_app
from services.gateway.auth import Keys, KeysFileError
from services.translator import checkpoint as translator_checkpoint
from services.vad import checkpoint as vad_checkpoint
from tests.conftest import ROOT
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, Mesh, running, served
from tests.robustness.make_corpus import FOLDER, MEMORY_SIZE, VOICE_SIZE, corpus

if TYPE_CHECKING:
    from services.diarizer.diarizer import Diarizer

_MOST_BYTES = 50_000_000
"""What decoding may take of memory, FFmpeg's own and a resampler's included."""

NOT_AUDIO = (400, "not audio in a format that is accepted")
CANNOT = (400, "cannot be decoded")
RECORDINGS = {
    "comment-of-two-gigabytes.wav": CANNOT,
    "comment-before-the-samples.wav": (200, ""),
    "format-of-a-gigabyte.wav": CANNOT,
    "hours-by-its-own-word.wav": (413, "audio is limited"),
    "no-samples.wav": (400, "nothing of the input could be decoded"),
    "one-sample-a-second.wav": (400, "a sample rate of 1 Hz is not supported"),
    "no-channels.wav": (400, "nothing of the input could be decoded"),
    "chunk-longer-than-the-file.wav": CANNOT,
    "tags-and-nothing-else.mp3": NOT_AUDIO,
    "tag-of-256-megabytes.mp3": NOT_AUDIO,
    "playlist-behind-a-tag.mp3": NOT_AUDIO,
    "element-of-an-exabyte.webm": CANNOT,
    "box-of-an-exabyte.m4a": CANNOT,
    "boxes-and-nothing-else.m4a": CANNOT,
    "index-of-a-gigabyte.m4a": (400, "no audio track"),
    "header-of-16-megabytes.flac": CANNOT,
    "title-of-two-gigabytes.aiff": CANNOT,
    "chunk-of-an-exabyte.caf": CANNOT,
    "page-cut-off.ogg": CANNOT,
    "header-of-four-gigabytes.au": CANNOT,
}
FORMS = {
    "whole.form": (200, ""),
    "list-nested-too-deep.form": (400, "is not one of: word, segment"),
    "temperature-is-no-number.form": (400, "is not a number from 0 to 1"),
    "charset-that-decodes-nothing.form": (400, "has to be in UTF-8"),
    "charset-with-lone-surrogates.form": (400, "has to be in UTF-8"),
    "ends-in-the-file.form": (400, "which holds the audio, is missing"),
    "field-without-name.form": (400, "the form cannot be read"),
    "no-boundary.form": (400, "the form cannot be read"),
    "another-boundary.form": (400, "the form cannot be read"),
}
TEXTS = {
    "nested-too-deep.json": "recursion",
    "lone-surrogate.json": "surrogate",
    "lone-surrogate-for-a-name.json": "cannot be read",
    "lone-surrogate-for-audio.json": "surrogates not allowed",
    "two-payloads.json": "multiple",
    "number-beyond-all.json": "inf",
    "five-thousand-digits.json": "cannot be read",
    "nothing.json": "cannot be read",
}
KEYS = {
    "key-itself.keys": "line 1",
    "named-twice.keys": "line 2 .* names alice again",
    "hash-cut-off.keys": "line 1",
    "no-utf-8.keys": "cannot be read",
}
CHECKPOINTS = {
    "asr/whole": "",
    "asr/cut-off": "damaged",
    "asr/of-the-vad": "damaged",
    "asr/word-beyond-the-clock": "holds no state",
    "asr/word-of-a-lone-surrogate": "holds no state",
    "asr/nested-too-deep": "holds no state",
    "vad/whole": "",
    "vad/cut-off": "damaged",
    "vad/of-the-recogniser": "damaged",
    "vad/speech-that-never-started": "holds no state",
    "vad/speech-that-never-ends": "holds no state",
    "vad/probability-is-no-number": "no number",
    "diarizer/whole": "",
    "diarizer/cut-off": "damaged",
    "diarizer/of-the-vad": "damaged",
    "diarizer/decided-before-it-was-heard": "holds no state",
    "diarizer/ends-before-it-begins": "holds no state",
    "diarizer/audio-of-an-hour": "too long",
    "diarizer/voice-is-no-number": "no number",
    "diarizer/voice-of-another-model": "voices of 5 numbers, not 4",
    "diarizer/frames-from-before-the-start": "holds no state",
    "translator/whole": "",
    "translator/cut-off": "damaged",
    "translator/of-the-recogniser": "holds no state",
    "translator/word-beyond-the-clock": "holds no state",
    "translator/word-of-a-lone-surrogate": "holds no state",
    "translator/word-without-text": "holds no state",
    "translator/words-covered-of-which-none-waits": "holds no state",
    "translator/words-that-end-together": "holds no state",
    "translator/number-beyond-all": "holds no state",
    "translator/nested-too-deep": "holds no state",
}


ONLINE = cast(
    "Diarizer",
    SimpleNamespace(context_samples=7 * RATE, load=lambda data: parse(data, VOICE_SIZE)),
)
"""What a checkpoint asks of the online engine, without its weights."""


def test_the_corpus_is_what_its_maker_writes_and_every_file_has_an_answer() -> None:
    kept = {
        str(path.relative_to(FOLDER)): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.is_file()
    }
    assert kept == corpus()
    assert set(kept) == {
        *(f"recordings/{name}" for name in RECORDINGS),
        *(f"forms/{name}" for name in FORMS),
        *(f"texts/{name}" for name in TEXTS),
        *(f"keys/{name}" for name in KEYS),
        *(f"checkpoints/{name}" for name in CHECKPOINTS),
    }
    assert sum(map(len, kept.values())) < 100_000


@asynccontextmanager
async def _gateway() -> AsyncIterator[Mesh]:
    with capture_logs() as logs:
        async with running(FakeVad([]), FakeAsr()) as mesh:
            yield mesh
    assert [log for log in logs if log["event"] == "unexpected error"] == []


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    async with _gateway() as mesh:
        app = httpx.ASGITransport(create_app(mesh.gateway))
        async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
            yield client


async def test_odd_recordings_are_read_or_refused_with_a_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    answers = {}
    async with _client() as client:
        for name in RECORDINGS:
            file = (name, (FOLDER / "recordings" / name).read_bytes())
            answers[name] = await client.post("/v1/audio/transcriptions", files={"file": file})
    _check(RECORDINGS, answers)
    assert "PyAV" not in capfd.readouterr().err


async def test_odd_forms_are_read_or_refused_with_a_reason() -> None:
    answers = {}
    async with _client() as client:
        for name in FORMS:
            kind, _, body = (FOLDER / "forms" / name).read_bytes().partition(b"\n")
            headers = {"content-type": kind.decode()}
            answers[name] = await client.post(
                "/v1/audio/transcriptions", content=body, headers=headers
            )
    _check(FORMS, answers)


def _check(expected: dict[str, tuple[int, str]], answers: dict[str, httpx.Response]) -> None:
    for name, (status, reason) in expected.items():
        assert answers[name].status_code == status, (name, answers[name].text)
        assert reason in answers[name].text, name


async def test_odd_texts_are_refused_with_a_reason() -> None:
    async with _gateway() as mesh, served(mesh.gateway) as port:
        for name, reason in TEXTS.items():
            async with connect(f"ws://127.0.0.1:{port}/v1/converse", proxy=None) as socket:
                await socket.send((FOLDER / "texts" / name).read_text())
                error = json.loads(await socket.recv())["error"]
                assert error["status"] == "INVALID_ARGUMENT", name
                assert reason in error["message"], name


@pytest.mark.parametrize("name", KEYS)
def test_odd_files_of_keys_are_refused_with_the_line(name: str) -> None:
    with pytest.raises(KeysFileError, match=KEYS[name]):
        Keys(FOLDER / "keys" / name)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_odd_checkpoints_are_refused_with_a_reason(name: str) -> None:
    data = (FOLDER / "checkpoints" / name).read_bytes()

    def decode() -> object:
        if name.startswith("asr/"):
            return asr_checkpoint.decode(data)
        if name.startswith("diarizer/"):
            return diarizer_checkpoint.decode(data, ONLINE)
        if name.startswith("translator/"):
            return translator_checkpoint.decode(data)
        return vad_checkpoint.decode(data, MEMORY_SIZE)

    if not CHECKPOINTS[name]:
        assert decode()
        return
    with pytest.raises(CheckpointError, match=CHECKPOINTS[name]):
        decode()


@pytest.mark.parametrize("name", ["chunk-longer-than-the-file.wav", "no-channels.wav"])
def test_odd_recordings_are_not_played(name: str) -> None:
    with pytest.raises(ValueError, match="not a WAV file"):
        read_wav(FOLDER / "recordings" / name)


def test_no_recording_takes_the_memory_that_it_says_it_needs() -> None:
    files = sorted(map(str, (FOLDER / "recordings").iterdir()))
    command = [sys.executable, "-m", "tests.robustness.peak", *files]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) < _MOST_BYTES
    assert done.stderr == ""
