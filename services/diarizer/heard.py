"""The clock of what is heard, and where on the lane's clock that was.

Pauses that are left out do not count on it, so short ones do not tear speech apart.
"""

from bisect import bisect_right
from collections.abc import Iterator


class HeardClock:
    """Knows for every position that was heard lately where it lies on the lane."""

    def __init__(self, heard_sample: int, lane_sample: int) -> None:
        self.heard_sample = heard_sample
        """Position after everything heard."""
        self.lane_sample = lane_sample
        """Position after everything heard or left out."""
        self.silence_samples = 0
        """What was left out since something was heard."""
        self._pieces: list[tuple[int, int]] = []
        """Where runs of audio begin, on both clocks."""
        self._running = False

    def hear(self, num_samples: int) -> None:
        """So many samples are heard."""
        if not self._running:
            self._pieces.append((self.heard_sample, self.lane_sample))
            self._running = True
        self.heard_sample += num_samples
        self.lane_sample += num_samples
        self.silence_samples = 0

    def leave_out(self, num_samples: int) -> None:
        """So many samples are left out."""
        self.lane_sample += num_samples
        self.silence_samples += num_samples
        self._running = False

    def jump(self, heard_sample: int) -> None:
        """What is heard next lies here, in or behind what has been heard."""
        self.heard_sample = heard_sample
        self._running = False

    def forget(self, before_sample: int) -> None:
        """Nobody will ask for what was heard before this position."""
        keep = max(0, bisect_right(self._pieces, before_sample, key=_heard) - 1)
        del self._pieces[:keep]

    def start_of(self, heard_sample: int) -> int:
        """Where on the lane something begins that begins here; pauses come before it."""
        index = bisect_right(self._pieces, heard_sample, key=_heard) - 1
        at_end = heard_sample >= self.heard_sample and not self._running
        if index < 0 or at_end:
            return self.lane_sample
        heard, lane = self._pieces[index]
        return lane + heard_sample - heard

    def spans(self, first_sample: int, end_sample: int) -> Iterator[tuple[int, int]]:
        """Where on the lane something lies that was heard between two positions."""
        for index, (heard, lane) in enumerate(self._pieces):
            following = [*self._pieces[index + 1 : index + 2], (self.heard_sample, 0)][0][0]
            begin, end = max(heard, first_sample), min(following, end_sample)
            if begin < end:
                yield lane + begin - heard, lane + end - heard


def _heard(piece: tuple[int, int]) -> int:
    return piece[0]
