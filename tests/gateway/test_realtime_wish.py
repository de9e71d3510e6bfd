"""What clients of ``/v1/realtime`` ask for, and how it is read and shown."""

from typing import Any

import pytest

from services.gateway.protocols.http_errors import RefusedError
from services.gateway.protocols.realtime_wish import Wish, first_wish, updated
from services.gateway.session_config import Diarization, SessionConfig

BASE = SessionConfig("s", "test")


def nested(**fields: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": fields}}


def test_what_is_absent_stays_and_null_takes_back() -> None:
    wish = updated(
        Wish(),
        nested(
            transcription={"model": "whisper-1", "language": "en", "prompt": "a"},
            noise_reduction={"type": "near_field"},
            format={"type": "audio/pcmu"},
        ),
    )
    wish = updated(wish, nested(transcription={"prompt": None}))
    assert wish.transcription is not None
    assert (wish.transcription.language, wish.transcription.prompt) == ("en", "")
    assert wish.audio.encoding == "mulaw"
    wish = updated(wish, nested(transcription=None, noise_reduction=None, format=None))
    assert wish == Wish()


@pytest.mark.parametrize(
    "session",
    [
        nested(format={"type": "audio/pcma"}, turn_detection=None),
        {"input_audio_format": "g711_alaw", "turn_detection": None},
        {
            "type": "realtime",
            "instructions": "x",
            **nested(format="audio/pcma", turn_detection=None),
        },
    ],
)
def test_both_shapes_are_read_and_shown(session: dict[str, Any]) -> None:
    wish = updated(Wish(), session)
    shown = wish.shown()
    assert shown["type"] == "transcription"
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcma"}
    assert wish.shown_flat()["input_audio_format"] == "g711_alaw"
    assert updated(Wish(), shown) == updated(Wish(), wish.shown_flat()) == wish


@pytest.mark.parametrize(
    ("turn_detection", "onset_threshold", "hangover_ms"),
    [
        ({"type": "server_vad"}, 0.5, 500),
        ({"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 350}, 0.7, 350),
        ({"type": "server_vad", "threshold": 0, "silence_duration_ms": 0}, 0.05, 32),
        ({"type": "server_vad", "threshold": 1, "silence_duration_ms": 60_000}, 0.95, 10_000),
        ({"type": "semantic_vad"}, 0.5, 1000),
        ({"type": "semantic_vad", "eagerness": "low"}, 0.5, 2000),
        ({"type": "semantic_vad", "eagerness": "high"}, 0.5, 500),
        ({"type": "none"}, None, None),
        (None, None, None),
    ],
)
def test_turns_end_as_it_is_said_within_what_a_vad_can_do(
    turn_detection: object, onset_threshold: float | None, hangover_ms: int | None
) -> None:
    config = updated(Wish(), nested(turn_detection=turn_detection)).config(BASE)
    assert (config.onset_threshold, config.hangover_ms) == (onset_threshold, hangover_ms)


@pytest.mark.parametrize(
    ("transcription", "language_code"),
    [
        ({}, ""),
        ({"language": "en-US"}, "en"),
        ({"languages": ["de"]}, "de"),
        ({"languages": ["de", "fr"]}, ""),
        ({"language": "English", "languages": ["de"]}, "en"),
    ],
)
def test_a_language_is_told_where_only_one_is_named(
    transcription: dict[str, Any], language_code: str
) -> None:
    config = updated(Wish(), nested(transcription=transcription)).config(BASE)
    assert config.language_code == language_code


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("", ""),
        ("base", "base"),
        ("whisper-1", "whisper-1"),
        ("gpt-4o-transcribe-2025-03-20", "gpt-4o-transcribe"),
        ("gpt-realtime-whisper", ""),
        ("gpt-4o-realtime-preview-2024-12-17", ""),
        ("gpt-realtime", ""),
    ],
)
def test_models_that_converse_transcribe_too(written: str, asked: str) -> None:
    assert first_wish(model=written, audio_format="").config(BASE).model == asked


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("gpt-4o-transcribe-diarize", Diarization()),
        ("gpt-4o-transcribe-diarize-2025-10-15", Diarization()),
        ("gpt-4o-transcribe", None),
        ("", None),
    ],
)
def test_a_model_that_is_called_so_tells_speakers_apart(
    written: str, expected: Diarization | None
) -> None:
    assert first_wish(model=written, audio_format="").config(BASE).diarization == expected


def test_an_address_may_name_the_rate() -> None:
    wish = first_wish(model="", audio_format="pcm_s16le_16000")
    assert wish.audio.sample_rate_hz == 16_000


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ([], "session"),
        ({"audio": 1}, "session.audio"),
        (nested(format={"type": "audio/mp3"}), "session.audio.input.format.type"),
        (nested(format={"type": "audio/pcm", "rate": 7999}), "session.audio.input.format.rate"),
        (nested(format={"type": "audio/pcm", "rate": True}), "session.audio.input.format.rate"),
        (nested(turn_detection={"type": "x"}), "session.audio.input.turn_detection.type"),
        (
            nested(turn_detection={"type": "semantic_vad", "eagerness": "x"}),
            "session.audio.input.turn_detection.eagerness",
        ),
        (nested(turn_detection={"threshold": 2}), "session.audio.input.turn_detection.threshold"),
        (nested(transcription={"model": 1}), "session.audio.input.transcription.model"),
        (nested(transcription={"keywords": [1]}), "session.audio.input.transcription.keywords"),
        ({"include": "all"}, "session.include"),
        (
            {"turn_detection": {"silence_duration_ms": -1}},
            "session.turn_detection.silence_duration_ms",
        ),
    ],
)
def test_what_has_a_wrong_form_is_named(session: object, param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        updated(Wish(), session)
    assert refused.value.param == param
    assert refused.value.code_name == "invalid_value"
