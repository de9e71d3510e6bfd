"""What of a WAV's header FFmpeg is to see, and what it says of the length."""

from services.common.errors import InvalidRequestError
from services.gateway.byte_source import Source

_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
_NEEDED = frozenset({b"fmt ", b"fact", b"ds64"})
"""Chunks before the samples that say what they are."""
_MAX_NEEDED_BYTES = 1 << 12
_PLACEHOLDER_BYTES = 0x7FFF0000
"""From this length on, it is what writers say who do not know the length yet."""


def trim_wav(source: Source) -> float | None:
    """Take everything out of the header but what the samples need.

    A title or a comment that says it is two gigabytes long makes FFmpeg fill as much memory.

    Returns:
        How long the audio is, in seconds, if the header knows; a stream's header does not.

    Raises:
        InvalidRequestError: What the samples need is longer than it can be.

    """
    kept = bytearray()
    _keep(source, kept, _HEADER_BYTES)
    bytes_per_s = 0
    while source.fill(_CHUNK_HEADER_BYTES) and not source.head.startswith(b"data"):
        name, length = bytes(source.head[:4]), _chunk_bytes(source)
        if name in _NEEDED:
            if name == b"fmt " and source.fill(20):
                bytes_per_s = int.from_bytes(source.head[16:20], "little")
            _keep(source, kept, _CHUNK_HEADER_BYTES + length + length % 2)
        else:
            source.skip(_CHUNK_HEADER_BYTES + length + length % 2)
    length = _chunk_bytes(source)
    source.head[:0] = kept
    known = bytes_per_s and 0 < length < _PLACEHOLDER_BYTES
    return length / bytes_per_s if known else None


def _chunk_bytes(source: Source) -> int:
    return int.from_bytes(source.head[4:8], "little")


def _keep(source: Source, kept: bytearray, num_bytes: int) -> None:
    """Move the next bytes from the source to those that are kept."""
    if len(kept) + num_bytes > _MAX_NEEDED_BYTES:
        raise InvalidRequestError("the input begins like wav, but cannot be decoded")
    source.fill(num_bytes)
    kept += source.head[:num_bytes]
    del source.head[:num_bytes]
