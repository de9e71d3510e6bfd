"""Who speaks in which frame -> turns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray


@dataclass(frozen=True, slots=True)
class Turn:
    """One person speaking without a pause."""

    speaker: int
    """From 1 in order of appearance."""
    first_sample: int
    end_sample: int
    probability: float


def turns_of(activity: FloatArray, edges: NDArray[np.int64]) -> list[Turn]:
    """The turns of a stretch, in order of their start.

    Args:
        activity: (num_frames, num_speakers) float32, probability that a speaker speaks; 0: no.
        edges: (num_frames + 1,) Where frames begin, and where the last one ends.

    """
    found = [
        Turn(
            speaker + 1,
            int(edges[begin]),
            int(edges[end]),
            float(activity[begin:end, speaker].mean()),
        )
        for speaker in range(activity.shape[1])
        for begin, end in _runs(activity[:, speaker] > 0)
        if edges[begin] < edges[end]
    ]
    return sorted(found, key=lambda turn: (turn.first_sample, turn.speaker))


def _runs(active: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.pad(active, 1).astype(np.int8)))
    return zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)
