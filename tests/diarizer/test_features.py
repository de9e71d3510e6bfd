import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.diarizer.engines.features import HOP_SAMPLES, mel_features, num_features, piece_of

SPAN = 400


def noise(num_samples: int) -> FloatArray:
    return np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)


def reference(audio: FloatArray, num_mels: int) -> FloatArray:
    """Kaldi's features by the book: its window, its emphasis, its scale of frequencies."""
    starts = range(0, len(audio) - SPAN + 1, HOP_SAMPLES)
    spans = np.stack([audio[start : start + SPAN] for start in starts]).astype(float)
    spans -= spans.mean(axis=1, keepdims=True)
    spans -= 0.97 * np.concatenate([spans[:, :1], spans[:, :-1]], axis=1)
    spans *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SPAN) / (SPAN - 1))) ** 0.85
    power = np.abs(np.fft.rfft(spans, 512))[:, :256] ** 2

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127 * np.log(1 + hz / 700)

    lowest, highest = mel(np.array([20.0, 8000.0])).tolist()
    borders = np.linspace(lowest, highest, num_mels + 2)
    bins = mel(np.arange(256) * 16_000 / 512)
    rising = (bins - borders[:-2, None]) / (borders[1:-1] - borders[:-2])[:, None]
    falling = (borders[2:, None] - bins) / (borders[2:] - borders[1:-1])[:, None]
    bank = np.maximum(0, np.minimum(rising, falling))
    powers: NDArray[np.float64] = power @ bank.T
    found = np.log(np.maximum(powers, np.finfo(np.float32).eps))
    centred: FloatArray = (found - found.mean(axis=0)).astype(np.float32)
    return centred


@pytest.mark.parametrize("num_samples", [400, 559, 560, 16_000, 17_279])
def test_features_are_kaldis(num_samples: int) -> None:
    audio = noise(num_samples)
    found = mel_features(audio, 80)
    assert found.shape == (num_features(num_samples), 80)
    np.testing.assert_allclose(found, reference(audio, 80), atol=2e-3)


def test_the_level_of_a_recording_does_not_matter() -> None:
    audio = noise(8000)
    np.testing.assert_allclose(mel_features(audio, 80), mel_features(audio * 4, 80), atol=1e-3)


@pytest.mark.parametrize(
    ("num_samples", "expected"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (8640, 52)]
)
def test_so_many_samples_give_so_many_features(num_samples: int, expected: int) -> None:
    assert num_features(num_samples) == expected


@pytest.mark.parametrize(
    ("first", "end", "most", "expected"),
    [
        (0, 8640, 100, (0, 8560)),
        (0, 16_240, 100, (0, 16_240)),
        (0, 16_560, 100, (320, 16_560)),
        (0, 16_720, 100, (640, 16_720)),
        (8640, 17_280, 100, (8640, 17_200)),
        (0, 400, 100, (0, 400)),
        # Too short for any.
        (0, 399, 100, (0, 0)),
        (8640, 9000, 100, (8640, 8640)),
    ],
)
def test_the_newest_features_are_made_of_these_samples(
    first: int, end: int, most: int, expected: tuple[int, int]
) -> None:
    begin, stop = piece_of(first, end, most)
    assert (begin, stop) == expected
    assert num_features(stop - begin) <= most
    assert begin % (2 * HOP_SAMPLES) == 0
    if begin < stop:
        assert stop <= end < stop + HOP_SAMPLES, "no later feature fits"
