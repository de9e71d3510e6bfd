"""The recent audio of one lane, addressed by sample index."""

from collections import deque

from services.common.audio import BYTES_PER_SAMPLE


class Ring:
    """Keeps what was appended until it is released, up to a capacity.

    Appending never overwrites: whoever fills the ring waits until ``room`` says there is some.
    """

    def __init__(self, capacity_samples: int) -> None:
        self._capacity = capacity_samples
        self._blocks: deque[tuple[int, bytes]] = deque()
        self._first = 0
        self._end = 0

    @property
    def first_sample(self) -> int:
        """Position of the oldest sample kept."""
        return self._first

    @property
    def end_sample(self) -> int:
        """Position after the newest sample."""
        return self._end

    @property
    def room(self) -> int:
        """How many samples may be appended now."""
        return self._capacity - (self._end - self._first)

    def append(self, pcm: bytes) -> None:
        """Append s16 samples behind the newest.

        Raises:
            ValueError: There is no room for so many, or half a sample.

        """
        if len(pcm) % BYTES_PER_SAMPLE:
            raise ValueError("half a sample")
        num_samples = len(pcm) // BYTES_PER_SAMPLE
        if num_samples > self.room:
            raise ValueError(f"no room for {num_samples} samples, only for {self.room}")
        if num_samples:
            self._blocks.append((self._end, pcm))
            self._end += num_samples

    def read(self, first_sample: int, end_sample: int) -> bytes:
        """The samples of a span as s16 bytes.

        Raises:
            IndexError: Part of the span is no longer, or not yet, in the ring.

        """
        if not self._first <= first_sample <= end_sample <= self._end:
            raise IndexError(
                f"[{first_sample}, {end_sample}) is not within [{self._first}, {self._end})"
            )
        parts = []
        for start, pcm in reversed(self._blocks):  # most often the newest is asked for
            if start < end_sample:
                begin = max(0, first_sample - start) * BYTES_PER_SAMPLE
                parts.append(pcm[begin : (end_sample - start) * BYTES_PER_SAMPLE])
            if start <= first_sample:
                break
        return b"".join(reversed(parts))

    def release(self, before_sample: int) -> None:
        """Forget everything before a position."""
        self._first = max(self._first, min(before_sample, self._end))
        while self._blocks:
            start, pcm = self._blocks[0]
            if start + len(pcm) // BYTES_PER_SAMPLE > self._first:
                break
            self._blocks.popleft()
