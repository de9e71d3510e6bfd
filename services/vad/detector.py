"""What the service asks of a model."""

from typing import Protocol

import numpy as np

from services.common.audio import FloatArray

WINDOW_SAMPLES = 512
"""Samples that are classified at once: 32 ms."""


class Detector(Protocol):
    """Speech probability of consecutive windows, for many streams at once.

    A detector keeps nothing between two calls: what a stream remembers is a row of ``memory``,
    which the caller keeps. A new stream, or one that goes on after a gap, remembers zeros.
    """

    @property
    def name(self) -> str:
        """Names the checkpoints of its streams."""
        ...

    @property
    def memory_size(self) -> int:
        """How many numbers a stream remembers."""
        ...

    def classify(self, windows: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Classify one window of each stream; no stream changes what comes out for another.

        Args:
            windows: (num_streams, WINDOW_SAMPLES) float32 in [-1, 1).
            memory: (num_streams, memory_size) float32.

        Returns:
            Probability of speech, (num_streams,) float32, and what the streams remember now.

        Raises:
            DeviceError: The model failed, for at least one of the streams.

        """
        ...


def fresh_memory(detector: Detector) -> FloatArray:
    """What a stream remembers that has heard nothing: (memory_size,) zeros."""
    return np.zeros(detector.memory_size, np.float32)
