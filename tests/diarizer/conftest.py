"""The model and recordings, as ``voxmesh pull`` installs them."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer.engines.embedder import Embedder
from services.diarizer.engines.online import OnlineDiarizer, Tuning
from services.diarizer.engines.segmenter import Segmenter
from services.diarizer.engines.sortformer import Sortformer
from tests.diarizer import toy


@pytest.fixture(scope="session")
def model_path(models: Callable[[str], Path]) -> Path:
    return models("diarizer-online")


@pytest.fixture(scope="session")
def online(model_path: Path) -> OnlineDiarizer:
    return OnlineDiarizer(
        Segmenter(model_path / "segmentation.bin", threads=1),
        Embedder(model_path / "campplus.pt", threads=1),
        Tuning(),
    )


@pytest.fixture(scope="session")
def nemotron_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Nemotron 3 Diarization that has learnt nothing."""
    return toy.save(tmp_path_factory.mktemp("diarizer") / "toy")


@pytest.fixture(scope="session")
def sortformer(nemotron_path: Path) -> Sortformer:
    return toy.load(nemotron_path, look_ahead=4)


@pytest.fixture(scope="session")
def nemo_path(tmp_path_factory: pytest.TempPathFactory, call: FloatArray) -> Path:
    """A Sortformer of NeMo that has learnt nothing."""
    from tests.diarizer import nemo_toy

    return nemo_toy.save(tmp_path_factory.mktemp("diarizer") / "toy.nemo", call)


@pytest.fixture(scope="session")
def nemo_sortformer(nemo_path: Path) -> Sortformer:
    from tests.diarizer import nemo_toy

    return nemo_toy.load(nemo_path, look_ahead=7)


@pytest.fixture(scope="session")
def call(speech: Path) -> FloatArray:
    """Thirty seconds of two people on the telephone."""
    return decoded(speech / "sample.wav")


@pytest.fixture(scope="session")
def reader(speech: Path) -> FloatArray:
    """Forty seconds of one person reading."""
    return decoded(speech / "two_cities.wav")


def decoded(path: Path) -> FloatArray:
    """A recording -> (num_samples,) float32 at 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
    with av.open(str(path)) as container:
        frames = [
            out.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for out in resampler.resample(frame)
        ]
    return np.concatenate([*frames, *(out.to_ndarray()[0] for out in resampler.resample(None))])
