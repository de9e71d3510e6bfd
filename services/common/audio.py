"""PCM as it travels in the mesh: 16 kHz, mono, little-endian signed 16 bit."""

import numpy as np
from numpy.typing import NDArray

BYTES_PER_SAMPLE = 2

FloatArray = NDArray[np.float32]
PcmArray = NDArray[np.int16]


def pcm_to_float(pcm: bytes) -> FloatArray:
    """Little-endian s16 bytes -> (num_samples,) float32 in [-1, 1)."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def float_to_pcm(samples: FloatArray) -> bytes:
    """(num_samples,) float32, clipped to [-1, 1] -> little-endian s16 bytes."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
