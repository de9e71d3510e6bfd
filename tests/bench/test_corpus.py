import json
from pathlib import Path

import numpy as np
import pytest

from bench.corpus import BYTES_PER_S, Clip, TimedWord, join, looped, recordings


def clip(name: str, audio_s: float, value: int = 1) -> Clip:
    pcm = np.full(round(audio_s * 16_000), value, "<i2").tobytes()
    words = (TimedWord(f"{name}1", 0.0, 0.4), TimedWord(f"{name}2", 0.4, 0.9))
    return Clip(name, pcm, f"{name}1 {name}2", "en", words)


def test_joined_clips_have_their_words_where_they_are_said() -> None:
    joined = join("both", [clip("a", 1.0), clip("b", 1.0)], [0.5, 2.0])
    assert joined.audio_s == 4.5
    assert joined.text == "a1 a2 b1 b2"
    assert [word.end_s for word in joined.words] == pytest.approx([0.4, 0.9, 1.9, 2.4])
    samples = np.frombuffer(joined.pcm, "<i2")
    assert samples[16_000:24_000].tolist() == [0] * 8_000
    assert samples[24_000] == 1


def test_pauses_of_noise_have_its_level() -> None:
    joined = join("noisy", [clip("a", 1.0, value=0)], [10.0], noise_rms=0.001)
    samples = np.frombuffer(joined.pcm, "<i2")[16_000:].astype(float) / 32_768
    assert np.sqrt((samples**2).mean()) == pytest.approx(0.001, rel=0.05)


def test_a_loop_lasts_as_long_as_asked_and_knows_the_words_in_it() -> None:
    loop = looped("long", [clip("a", 1.0), clip("b", 1.0)], 3.5)
    assert len(loop.pcm) == 3.5 * BYTES_PER_S
    assert loop.text == "a1 a2 b1 b2 a1 a2 b1"
    assert loop.words[-1].end_s == pytest.approx(3.4)


def test_a_manifest_lies_in_a_folder_of_the_folder_that_its_paths_start_from(
    tmp_path: Path,
) -> None:
    (tmp_path / "some").mkdir()
    row = {"id": "one", "path": "some/one.flac", "text": "to be", "lang": "en"}
    row["words"] = [["to", 0.0, 0.2], ["be", 0.2, 0.4]]  # type: ignore[assignment]  # a JSON row
    (tmp_path / "some" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    [recording] = recordings(tmp_path / "some" / "manifest.jsonl")
    assert recording.path == tmp_path.resolve() / "some" / "one.flac"
    assert recording.words[1] == TimedWord("be", 0.2, 0.4)
    assert not recording.low_level
