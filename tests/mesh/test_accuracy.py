"""The mesh reads as well as its model does."""

import json
from pathlib import Path

from faster_whisper import WhisperModel

from tests.conftest import TWO_CITIES, Models, ServedMesh
from tests.mesh.rest import upload
from tests.mesh.wording import assert_same_words, difference

HARD = "long-1688"


def test_a_recording_is_read_word_for_word(mesh_base: ServedMesh, speech: Path) -> None:
    answer = upload(mesh_base, (speech / "two_cities.wav").read_bytes(), language="en")
    assert_same_words(TWO_CITIES, answer.json()["text"])


def test_a_hard_recording_is_read_as_well_as_by_the_model_itself(
    mesh_base: ServedMesh, models: Models, shared_data: Path
) -> None:
    """A minute of LibriSpeech test-other, against faster-whisper called as a library."""
    rows = map(json.loads, (shared_data / "librispeech/long.jsonl").read_text().splitlines())
    row = next(row for row in rows if row["id"] == HARD)
    path = shared_data / row["path"]
    whisper = WhisperModel(str(models("base")), device="cpu", compute_type="int8")
    segments, _ = whisper.transcribe(str(path), language="en", beam_size=1)
    direct = difference(row["text"], "".join(segment.text for segment in segments))
    answer = upload(mesh_base, path.read_bytes(), language="en")
    mesh = difference(row["text"], answer.json()["text"])
    assert mesh.wer_percent <= direct.wer_percent + 1.0, (mesh, direct)
