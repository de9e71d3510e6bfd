"""The model and a recording, as ``voxmesh pull`` installs them."""

import wave
from pathlib import Path

import pytest

from services.common import models
from services.vad.silero import SileroDetector


@pytest.fixture(scope="session")
def model_path() -> Path:
    try:
        return models.locate("silero-vad") / "silero_vad.onnx"
    except models.ModelMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def silero(model_path: Path) -> SileroDetector:
    return SileroDetector(model_path)


@pytest.fixture(scope="session")
def beckett() -> bytes:
    """Ten seconds of a person reading, in several breaths; s16le 16 kHz mono."""
    try:
        path = models.locate("speech") / "beckett.wav"
    except models.ModelMissingError as error:
        pytest.skip(str(error))
    with wave.open(str(path)) as recording:
        assert (recording.getframerate(), recording.getnchannels()) == (16_000, 1)
        return bytes(recording.readframes(recording.getnframes()))
