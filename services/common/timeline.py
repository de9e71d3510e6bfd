"""The sample clock: every position in the mesh is a sample index of one lane, counted from 0."""

from dataclasses import dataclass

SAMPLE_RATE_HZ = 16_000
"""Samples per second on every lane's clock."""


@dataclass(frozen=True, slots=True)
class Span:
    """The samples from ``first_sample`` up to, not including, ``end_sample``."""

    first_sample: int
    end_sample: int

    def __len__(self) -> int:
        return self.end_sample - self.first_sample


def seconds(num_samples: int) -> float:
    """How long so many samples last, in seconds."""
    return num_samples / SAMPLE_RATE_HZ


def samples(duration_s: float) -> int:
    """How many samples so many seconds hold, rounded to the nearest."""
    return round(duration_s * SAMPLE_RATE_HZ)


def samples_of_ms(duration_ms: int) -> int:
    """How many samples so many milliseconds hold."""
    return duration_ms * SAMPLE_RATE_HZ // 1000
