"""A stream of bytes as FFmpeg reads it, whose beginning can be looked at beforehand."""

from collections.abc import Callable

ReadNext = Callable[[], bytes | None]
"""Returns the next bytes as they came, waiting for them; None at the end."""


class Source:
    """Bytes in order; ``read`` is what FFmpeg calls."""

    def __init__(self, read_next: ReadNext) -> None:
        self._read_next = read_next
        self._ended = False
        self.head = bytearray()

    def fill(self, num_bytes: int) -> bool:
        """Wait until ``head`` is so long; False: the input is shorter."""
        while len(self.head) < num_bytes and not self._ended:
            self._more()
        return len(self.head) >= num_bytes

    def skip(self, num_bytes: int) -> None:
        """Forget so many of the next bytes."""
        while num_bytes and self.fill(1):
            dropped = min(num_bytes, len(self.head))
            del self.head[:dropped]
            num_bytes -= dropped

    def read(self, num_bytes: int) -> bytes:
        """Return at least one and at most so many bytes; none only at the end."""
        self.fill(1)
        data = bytes(self.head[:num_bytes])
        del self.head[:num_bytes]
        return data

    def _more(self) -> None:
        data = self._read_next()
        if data is None:
            self._ended = True
        else:
            self.head += data
