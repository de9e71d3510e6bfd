"""The model and a recording, as ``voxmesh pull`` installs them."""

import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vad.silero import SileroDetector


@pytest.fixture(scope="session")
def model_path(models: Callable[[str], Path]) -> Path:
    return models("silero-vad") / "silero_vad.onnx"


@pytest.fixture(scope="session")
def silero(model_path: Path) -> SileroDetector:
    return SileroDetector(model_path)


@pytest.fixture(scope="session")
def beckett(speech: Path) -> bytes:
    """Ten seconds of a person reading, in several breaths; s16le 16 kHz mono."""
    with wave.open(str(speech / "beckett.wav")) as recording:
        assert (recording.getframerate(), recording.getnchannels()) == (16_000, 1)
        return bytes(recording.readframes(recording.getnframes()))
