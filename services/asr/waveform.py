"""The audio that a window can be cut from; what was left out of it is silence."""

from collections import deque

import numpy as np

from services.common.audio import FloatArray
from services.common.timeline import samples_of_ms

_QUIET_SAMPLES = samples_of_ms(40)
_FRAME_SAMPLES = samples_of_ms(20)
_PAUSE_FRAMES = 8
"""A stop within a word is shorter."""
_WORD_FRAMES = 15
"""Loud frames; a click or a breath has fewer."""
_QUIET_ENERGY = 0.005
"""Of the loudest frame's: 23 dB below it nobody speaks. In a noisy room it never gets so quiet."""


class Waveform:
    """Recent audio of one lane, addressed by sample index."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, FloatArray]] = deque()
        self._energies: deque[FloatArray] = deque()
        self._peaks: deque[float] = deque()

    @property
    def end_sample(self) -> int | None:
        """Position after the newest audio; None if there is none."""
        if not self._runs:
            return None
        first, run = self._runs[-1]
        return first + len(run)

    def append(self, first_sample: int, run: FloatArray) -> None:
        """Append audio behind the newest.  run: (num_samples,) float32."""
        self._runs.append((first_sample, run))
        energies = _energies(run)
        self._energies.append(energies)
        self._peaks.append(float(energies.max(initial=0)))

    @property
    def _loud(self) -> float:
        """The energy above which a frame is not quiet."""
        return _QUIET_ENERGY * max(self._peaks, default=0.0)

    @property
    def loud_until(self) -> int:
        """Position after the last frame of 20 ms that is not quiet; 0 if there is none."""
        loud = self._loud
        for number in range(len(self._runs) - 1, -1, -1):
            if self._peaks[number] > loud:
                first, run = self._runs[number]
                frames = np.flatnonzero(self._energies[number] > loud)
                return min(first + (int(frames[-1]) + 1) * _FRAME_SAMPLES, first + len(run))
        return 0

    def is_quiet(self, first_sample: int, end_sample: int) -> bool:
        """Whether no frame of a span is loud."""
        return self.loudest(first_sample, end_sample) <= self._loud

    def loudest(self, first_sample: int, end_sample: int) -> float:
        """The energy of the loudest 20 ms of a span; 0 if it is empty."""
        return float(self._frames(first_sample, end_sample).max(initial=0.0))

    def resumes(self, first_sample: int, end_sample: int) -> int | None:
        """Where the first pause in a span ends; None: there is none, or too little sound behind."""
        loud = self._frames(first_sample, end_sample) > self._loud
        quiet = 0
        for number, is_loud in enumerate(loud.tolist()):
            if is_loud and quiet >= _PAUSE_FRAMES:
                enough = int(loud[number:].sum()) >= _WORD_FRAMES
                return first_sample + number * _FRAME_SAMPLES if enough else None
            quiet = 0 if is_loud else quiet + 1
        return None

    def _frames(self, first_sample: int, end_sample: int) -> FloatArray:
        """The energy of each 20 ms of a span."""
        return _energies(self.read(first_sample, max(first_sample, end_sample)))

    def read(self, first_sample: int, end_sample: int) -> FloatArray:
        """The audio of a span, with zeros where there is none.  -> (num_samples,) float32."""
        out = np.zeros(end_sample - first_sample, np.float32)
        for start, run in self._runs:
            begin, end = max(start, first_sample), min(start + len(run), end_sample)
            if begin < end:
                out[begin - first_sample : end - first_sample] = run[begin - start : end - start]
        return out

    def quietest(self, first_sample: int, end_sample: int) -> tuple[int, float]:
        """The middle of the quietest 40 ms of a span, and their mean square."""
        width = min(_QUIET_SAMPLES, end_sample - first_sample)
        power = np.square(self.read(first_sample, end_sample), dtype=np.float64)
        sums = np.cumsum(np.concatenate([[0.0], power]))
        means = (sums[width:] - sums[:-width]) / width
        place = int(np.argmin(means))
        return first_sample + place + width // 2, float(means[place])

    def release(self, before_sample: int) -> None:
        """Forget the runs that end before a position."""
        while self._runs and self._runs[0][0] + len(self._runs[0][1]) <= before_sample:
            self._runs.popleft()
            self._energies.popleft()
            self._peaks.popleft()


def _energies(run: FloatArray) -> FloatArray:
    """Of each 20 ms of samples."""
    starts = np.arange(0, len(run), _FRAME_SAMPLES)
    return np.add.reduceat(np.square(run), starts) if len(run) else run
