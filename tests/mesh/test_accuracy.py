"""The mesh reads as well as its model does."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from faster_whisper import WhisperModel

from tests.conftest import TWO_CITIES
from tests.mesh.wording import assert_same_words, difference

if TYPE_CHECKING:
    from tests.conftest import Models, ServedMesh

LONG = "long-1688"


async def uploaded(mesh: "ServedMesh", path: Path) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=240) as client:
        answer = await client.post(
            f"{mesh.http_url}/v1/audio/transcriptions",
            files={"file": (path.name, path.read_bytes())},
            data={"language": "en"},
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["text"])


async def test_a_recording_is_read_word_for_word(mesh_base: "ServedMesh", speech: Path) -> None:
    assert_same_words(TWO_CITIES, await uploaded(mesh_base, speech / "two_cities.wav"))


async def test_a_hard_recording_is_read_as_well_as_by_the_model_itself(
    mesh_base: "ServedMesh", models: "Models", shared_data: Path
) -> None:
    """One minute of LibriSpeech test-other, against faster-whisper called as a library."""
    rows = map(json.loads, (shared_data / "librispeech/long.jsonl").read_text().splitlines())
    row = next(row for row in rows if row["id"] == LONG)
    path = shared_data / row["path"]
    whisper = WhisperModel(str(models("base")), device="cpu", compute_type="int8")
    segments, _ = whisper.transcribe(str(path), language="en", beam_size=1)
    direct = difference(row["text"], "".join(segment.text for segment in segments))
    mesh = difference(row["text"], await uploaded(mesh_base, path))
    assert mesh.wer_percent <= direct.wer_percent + 1.0
