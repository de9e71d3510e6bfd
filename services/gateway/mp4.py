"""What an MP4 needs before FFmpeg can read it from a stream. Source: ISO 14496-12, 4.2."""

from typing import IO

from services.common.errors import StreamTooLongError
from services.gateway.byte_source import Source

_INDEX_SEARCH_BYTES = 1 << 20
"""How far into the input the index is looked for before it counts as being at the end."""
_BOX_HEADER_BYTES = 16


def index_comes_first(source: Source) -> bool:
    """Whether the input can be decoded while it arrives."""
    offset = 0
    while source.fill(offset + _BOX_HEADER_BYTES) and offset < _INDEX_SEARCH_BYTES:
        kind = bytes(source.head[offset + 4 : offset + 8])
        length = _box_bytes(source.head[offset : offset + _BOX_HEADER_BYTES])
        if kind == b"moov" or kind == b"mdat" or not length:
            return kind == b"moov"
        offset += length
        if offset > _INDEX_SEARCH_BYTES:
            break
    return False


def _box_bytes(header: bytes | bytearray) -> int:
    """Length of the box that begins so; 0: it reaches to the end, or is none."""
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(header[8:16], "big")
    return length if length >= 8 else 0


class BoxSource:
    """An MP4 as FFmpeg reads it, in pieces that begin where boxes begin.

    FFmpeg steps back to the start of a top-level box once it has read what box it is. In a stream
    it can only do so within the piece it was given last.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left_bytes: int | None = 0

    def read(self, num_bytes: int) -> bytes:
        """Return at least one and at most so many bytes; none only at the end."""
        if self._left_bytes == 0:
            self._source.fill(_BOX_HEADER_BYTES)
            self._left_bytes = _box_bytes(self._source.head[:_BOX_HEADER_BYTES]) or None
        if self._left_bytes is None:
            return self._source.read(num_bytes)
        data = self._source.read(min(num_bytes, self._left_bytes))
        self._left_bytes -= len(data)
        return data


class SpooledSource:
    """A complete file as FFmpeg reads it, with ``seek``."""

    def __init__(self, source: Source, spool: IO[bytes], *, max_bytes: int) -> None:
        """Wait for the whole input and keep it.

        Raises:
            StreamTooLongError: It is larger than allowed.

        """
        while data := source.read(1 << 16):
            if spool.tell() + len(data) > max_bytes:
                raise StreamTooLongError(
                    f"an MP4 with its index at the end is limited to {max_bytes} bytes"
                )
            spool.write(data)
        spool.seek(0)
        self.read = spool.read
        self.seek = spool.seek
        self.tell = spool.tell
