"""What decoding costs a replica, and what follows: how often streams are decoded, and how many.

There is no clock here: whoever measures says how long it took.
"""

import math
from dataclasses import dataclass

_TARGET_UTILISATION = 0.8
"""The rest is for windows that end at a pause, for those decoded again, and for short queues."""
_COST_BATCHES = 16.0
_ALIKE_WINDOWS = 64.0
_UTILISATION_S = 5.0
_WAIT_WINDOWS = 16.0
_MAX_WAIT_SHARE = 0.15
"""Live windows that wait for a worker, on average, longer than this share of the step with which
streams are let in, leave no room for more."""
_MAX_FILE_RUN_S = 1.0
"""A live window may have to wait for the files being decoded: not longer than this, if it can be
helped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica has, and what its operator asks of it."""

    workers: int
    """Batches decoded at once."""
    max_batch: int
    """Windows in one batch."""
    max_streams: int
    min_step_s: float
    """New audio that makes a live stream be decoded again while there is room."""
    max_step_s: float
    """New audio that makes a live stream be decoded again when there is none left."""
    admit_step_s: float = math.inf
    """The step with which new live streams are still let in, if the longest is not shorter."""


class FadingMean:
    """A mean in which old values fade: after ``memory`` of weight they count a third."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._total = 0.0
        self._weight = 0.0

    def add(self, total: float, weight: float = 1.0) -> None:
        """Add values of some weight, given their weighted sum."""
        kept = math.exp(-weight / self._memory)
        self._total = kept * self._total + total
        self._weight = kept * self._weight + weight

    @property
    def value(self) -> float:
        """The mean; 0 before the first value."""
        return self._total / self._weight if self._weight else 0.0


class WindowCost:
    """Worker-seconds per window, by the size of the batch that it shares, in powers of two."""

    def __init__(self) -> None:
        self._by_size: dict[int, FadingMean] = {}

    def add(self, num_windows: int, run_s: float) -> None:
        """Take in the run of one batch."""
        size = 1 << num_windows.bit_length() - 1
        self._by_size.setdefault(size, FadingMean(_COST_BATCHES)).add(run_s / num_windows)

    def at(self, num_windows: float) -> float:
        """The least that a window was seen to cost in batches up to a size; 0: none was seen."""
        if not self._by_size:
            return 0.0
        most = max(num_windows, min(self._by_size))
        return min(cost.value for size, cost in self._by_size.items() if size <= most)


class Load:
    """The costs of live streams and of files, and the room that they leave."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live = WindowCost()
        self._file = WindowCost()
        self._alike = FadingMean(_ALIKE_WINDOWS)
        self._wait = FadingMean(_WAIT_WINDOWS)
        self._full_window_s = 0.0

    def measured(self, run_s: float) -> None:
        """Take in what a full live window costs a worker when there is nothing else to do.

        Streams that have just begun decode short windows, and would make room seem larger.
        """
        self._full_window_s = run_s
        self.decoded(1, run_s, live=True)

    def waited(self, wait_s: float) -> None:
        """Take in how long a live window waited for a worker.

        That tells of what costs do not: decodings at pauses, and whatever else the machine does.
        """
        self._wait.add(wait_s)

    def decoded(self, num_windows: int, run_s: float, *, live: bool) -> None:
        """Take in how long a worker took for a batch."""
        (self._live if live else self._file).add(num_windows, run_s)

    def gathered(self, num_alike: int, num_waiting: int) -> None:
        """Take in how many of the live windows that waited could share a batch."""
        self._alike.add(num_alike - 1, num_waiting - 1)

    def needed_step_s(self, speaking: int) -> float:
        """How far apart the decodings of so many live streams have to be, in seconds.

        Their windows cost what they were measured to cost in batches as large as the streams can
        fill, and keep the workers busy for no more than the target utilisation.
        """
        together = 1 + self._alike.value * max(0, speaking - 1)
        cost_s = self._live.at(min(together, self._limits.max_batch))
        return speaking * cost_s / (self._limits.workers * _TARGET_UTILISATION)

    def step_s(self, speaking: int) -> float:
        """How far apart the decodings of so many live streams are, in seconds."""
        needed_s = self.needed_step_s(speaking)
        return min(max(needed_s, self._limits.min_step_s), self._limits.max_step_s)

    def admitted_step_s(self, speaking: int) -> float:
        """The same once their windows are full, in seconds."""
        alone_s = self._live.at(1)
        growth = max(1.0, self._full_window_s / alone_s) if alone_s else 1.0
        return growth * self.needed_step_s(speaking)

    @property
    def wait_s(self) -> float:
        """How long live windows lately waited for a worker, in seconds."""
        return self._wait.value

    def has_room(self, speaking: int) -> bool:
        """Whether so many live streams can be decoded often enough, and in time."""
        return self._fit(speaking) and self.wait_s <= _MAX_WAIT_SHARE * self._longest_s

    @property
    def capacity(self) -> int:
        """Live streams that can speak at once."""
        fitting = 0
        while fitting < self._limits.max_streams and self._fit(fitting + 1):
            fitting += 1
        return fitting

    def _fit(self, speaking: int) -> bool:
        return self.admitted_step_s(speaking) <= self._longest_s

    @property
    def _longest_s(self) -> float:
        """The step with which streams are let in."""
        return min(self._limits.admit_step_s, self._limits.max_step_s)

    def files_at_once(self, speaking: int) -> int:
        """Windows of files in one batch, while so many live streams speak."""
        cost_s = self._file.at(self._limits.max_batch)
        if not (speaking and cost_s):
            return self._limits.max_batch
        return min(max(1, int(_MAX_FILE_RUN_S / cost_s)), self._limits.max_batch)


class Utilisation:
    """The share of the workers that is busy, over the last seconds."""

    def __init__(self, workers: int, now_s: float) -> None:
        self._workers = workers
        self._busy = 0
        self._since_s = now_s
        self._mean = FadingMean(_UTILISATION_S)

    def change(self, now_s: float, by: int = 0) -> float:
        """Count one more busy worker, or one less.

        Returns:
            The share up to now, 0 to 1.

        """
        past_s = now_s - self._since_s
        self._mean.add(past_s * self._busy / self._workers, past_s)
        self._since_s = now_s
        self._busy += by
        return self._mean.value

    @property
    def idle(self) -> int:
        """Workers that are not busy."""
        return self._workers - self._busy
