"""The audio that a window can be cut from; what was left out of it is silence."""

from collections import deque

import numpy as np

from services.common.audio import FloatArray


class Waveform:
    """Recent audio of one lane, addressed by sample index."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, FloatArray]] = deque()

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

    def read(self, first_sample: int, end_sample: int) -> FloatArray:
        """The audio of a span, with zeros where there is none.  -> (num_samples,) float32."""
        out = np.zeros(end_sample - first_sample, np.float32)
        for start, run in self._runs:
            begin, end = max(start, first_sample), min(start + len(run), end_sample)
            if begin < end:
                out[begin - first_sample : end - first_sample] = run[begin - start : end - start]
        return out

    def release(self, before_sample: int) -> None:
        """Forget the runs that end before a position."""
        while self._runs and self._runs[0][0] + len(self._runs[0][1]) <= before_sample:
            self._runs.popleft()
