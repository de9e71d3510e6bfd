"""What a WAV header says of the length, for FFmpeg does not tell it of a stream."""

from services.gateway.byte_source import Source

_SEARCH_BYTES = 1 << 16
_CHUNK_HEADER_BYTES = 8
_PLACEHOLDER_BYTES = 0x7FFF0000
"""From this length on, it is what writers say who do not know the length yet."""


def claimed_wav_s(source: Source) -> float | None:
    """How long the audio is, in seconds, if the header knows; a stream's header does not."""
    offset, bytes_per_s = 12, 0
    while offset < _SEARCH_BYTES and source.fill(offset + _CHUNK_HEADER_BYTES):
        name = source.head[offset : offset + 4]
        length = int.from_bytes(source.head[offset + 4 : offset + 8], "little")
        offset += _CHUNK_HEADER_BYTES
        if name == b"data":
            known = bytes_per_s and 0 < length < _PLACEHOLDER_BYTES
            return length / bytes_per_s if known else None
        if name == b"fmt " and source.fill(offset + 12):
            bytes_per_s = int.from_bytes(source.head[offset + 8 : offset + 12], "little")
        offset += length + length % 2
    return None
