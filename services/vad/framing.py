"""Audio and gaps, cut anywhere -> whole windows on a fixed grid."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from services.common.audio import FloatArray
from services.vad.detector import WINDOW_SAMPLES


@dataclass(frozen=True, slots=True)
class Windows:
    """Consecutive windows to classify: (num_windows, WINDOW_SAMPLES) float32."""

    samples: FloatArray


@dataclass(frozen=True, slots=True)
class Silence:
    """Consecutive windows that lie wholly in a gap: nobody speaks, and the model forgets."""

    num_windows: int


Piece: TypeAlias = Windows | Silence


class Framer:
    """Cuts one stream into windows that start at its first sample.

    A gap is zeros where it shares a window with audio, so positions stay exact whatever its length.
    """

    def __init__(self, first_sample: int) -> None:
        self.end_sample = first_sample
        """Position after everything taken in."""
        self._partial = np.zeros(0, np.float32)
        self._gap_samples = 0

    @property
    def partial(self) -> FloatArray | None:
        """The window that is not yet complete, with zeros for what is not yet there.

        ``None`` if there is none, or if nothing in it is audio.
        """
        if self._gap_samples == len(self._partial):
            return None
        return np.pad(self._partial, (0, WINDOW_SAMPLES - len(self._partial)))

    @property
    def partial_samples(self) -> int:
        """How much of the window that is not yet complete is there."""
        return len(self._partial)

    def take(self, samples: FloatArray) -> list[Piece]:
        """Take in audio: (num_samples,) float32. The windows it completes, in order."""
        self.end_sample += len(samples)
        joined = np.concatenate([self._partial, samples])
        whole = len(joined) // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._partial = joined[whole:]
        if not whole:
            return []
        self._gap_samples = 0
        return [Windows(joined[:whole].reshape(-1, WINDOW_SAMPLES))]

    def skip(self, num_samples: int) -> list[Piece]:
        """Take in a gap. The windows it completes, in order."""
        self.end_sample += num_samples
        pieces: list[Piece] = []
        if self._partial.size:
            fill = min(num_samples, WINDOW_SAMPLES - len(self._partial))
            num_samples -= fill
            self._gap_samples += fill
            self._partial = np.pad(self._partial, (0, fill))
            if len(self._partial) < WINDOW_SAMPLES:
                return []
            heard = self._gap_samples < WINDOW_SAMPLES
            pieces.append(Windows(self._partial[np.newaxis]) if heard else Silence(1))
        if num_windows := num_samples // WINDOW_SAMPLES:
            pieces.append(Silence(num_windows))
        self._gap_samples = num_samples % WINDOW_SAMPLES
        self._partial = np.zeros(self._gap_samples, np.float32)
        return pieces
