"""The models and a recording, as ``voxmesh pull`` installs them."""

import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from services.asr.engines.ctranslate2_whisper import CTranslate2Whisper
from services.asr.engines.whisper_window import Framing
from services.common.audio import FloatArray, PcmArray
from services.common.timeline import SAMPLE_RATE_HZ

FRAMING = Framing(pad_s=3.0, min_s=0.0, bucket_s=1.0)


def load(folder: Path) -> CTranslate2Whisper:
    return CTranslate2Whisper(
        folder,
        device="cpu",
        compute_type="int8",
        workers=1,
        threads=2,
        beam_size=1,
        framing=FRAMING,
    )


@pytest.fixture(scope="session")
def tiny(models: Callable[[str], Path]) -> CTranslate2Whisper:
    """Quick, English only."""
    return load(models("tiny.en"))


@pytest.fixture(scope="session")
def base(models: Callable[[str], Path]) -> CTranslate2Whisper:
    """Multilingual."""
    return load(models("base"))


@pytest.fixture(scope="session")
def beckett(speech: Path) -> FloatArray:
    """Ten seconds of a person reading, in several breaths; 16 kHz."""
    with wave.open(str(speech / "beckett.wav")) as recording:
        assert (recording.getframerate(), recording.getnchannels()) == (SAMPLE_RATE_HZ, 1)
        pcm = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
    return pcm.astype(np.float32) / np.float32(32768)


@pytest.fixture(scope="session")
def two_cities(speech: Path) -> FloatArray:
    """Forty-four seconds of a person reading Dickens; 16 kHz."""
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
    parts: list[PcmArray] = []
    with av.open(str(speech / "two_cities.wav")) as recording:
        for frame in [*recording.decode(audio=0), None]:
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts).astype(np.float32) / np.float32(32768)
