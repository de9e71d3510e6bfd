"""Which heads follow speech, of a model of which it is known."""

import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.asr import heads
from services.asr.engines.alignment_heads import PUBLISHED, parse_heads
from services.asr.engines.torch_whisper import TorchWhisper
from services.asr.engines.whisper_weights import load_checkpoint
from services.asr.heads import choose, find_heads, heard_at, read_recording, windows_of
from services.asr.recognizer import Window
from services.common.audio import FloatArray
from services.common.timeline import samples
from tests.asr.engines.toy import load_torch

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(models: Models) -> TorchWhisper:
    return load_torch(load_checkpoint(models("tiny.en")))


def write_wav(path: Path, sound: FloatArray, *, rate: int = 16_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(2)
        target.setframerate(rate)
        pcm = np.repeat((sound * 32767).astype("<i2"), channels)
        target.writeframes(pcm.tobytes())
    return path


def test_of_the_published_heads_of_tiny_en_most_are_found(
    models: Models, two_cities: FloatArray, beckett: FloatArray
) -> None:
    published = parse_heads(PUBLISHED["tiny.en"], num_layers=4, num_heads=6)
    sounds = [two_cities[: samples(6)], beckett[: samples(4)]]
    found, dump = find_heads(models("tiny.en"), sounds, language_code="en", device="cpu")
    assert len(set(found) & set(published)) >= 6
    assert len(found) <= 12, "and not all there are"
    assert parse_heads(dump, num_layers=4, num_heads=6) == tuple(found)


def test_a_token_is_heard_where_it_is_spoken(model: TorchWhisper, beckett: FloatArray) -> None:
    """Two words, a pause, two words from 1.9 s on."""
    window = Window(beckett[: samples(4)], 0, language_code="en")
    tokens, _ = model.attention(window)
    times = heard_at(model, window, tokens)
    texts = {index: model._tokens.split([tokens[index]], "en")[0][0] for index in times}
    heard = {texts[index]: time_s for index, time_s in times.items()}
    assert heard[" tried"] == pytest.approx(1.0, abs=0.4)
    assert heard[" failed"] == pytest.approx(2.5, abs=0.4)


def test_heads_are_chosen_that_are_half_as_good_as_the_best() -> None:
    names = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert choose(names, np.array([0.6, 0.29, 0.3, 0.1])) == [(0, 0), (1, 0)]


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8_000, 1), (44_100, 1)])
def test_recordings_of_any_rate_are_read(rate: int, channels: int, tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(2 * rate) / rate).astype(np.float32) * 0.5
    found = read_recording(write_wav(tmp_path / "a.wav", tone, rate=rate, channels=channels))
    expected = np.sin(2 * np.pi * 300 * np.arange(32_000) / 16_000) * 0.5
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=2e-3)


def test_a_recording_is_cut_into_windows_that_hold_something() -> None:
    found = list(windows_of(np.zeros(samples(31), np.float32), "de"))
    assert [len(window.samples) for window in found] == [samples(15), samples(15)]
    assert found[0].language_code == "de"


def test_the_command_prints_heads_in_both_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(16_000, np.float32))
    asked: dict[str, object] = {}

    def find(model: Path, sounds: list[FloatArray], **how: object) -> tuple[list[object], str]:
        asked.update(how, model=model, lengths=[len(sound) for sound in sounds])
        return [(1, 2), (3, 4)], "ABz"

    monkeypatch.setattr(heads, "find_heads", find)
    arguments = [str(tmp_path), "--audio", str(path), "--audio", str(path), "--language", "de"]
    assert heads.main(arguments) == 0
    assert asked == {
        "model": tmp_path,
        "lengths": [16_000, 16_000],
        "language_code": "de",
        "device": "cpu",
    }
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[0]) == [[1, 2], [3, 4]]
    assert printed[1] == "ABz"


def test_what_cannot_be_used_ends_the_command_with_the_reason(
    tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    silent = write_wav(tmp_path / "silent.wav", np.zeros(16_000, np.float32))
    tiny = str(models("tiny.en"))
    for arguments, reason in (
        ([tiny, "--audio", str(tmp_path / "a.wav")], "is no WAV file"),
        ([tiny, "--audio", str(tmp_path / "b.wav")], "is no WAV file"),
        ([tiny, "--audio", str(silent)], "nothing is said"),
        ([str(tmp_path), "--audio", str(silent)], "no Whisper model"),
    ):
        assert heads.main(arguments) == 1
        assert reason in capsys.readouterr().err
