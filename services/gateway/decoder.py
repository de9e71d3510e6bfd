"""What a client sends as audio -> 16 kHz s16, in order and without a sample lost or added.

Raw samples are converted on the spot; containers are decoded on a thread while they arrive.
"""

from contextlib import AbstractAsyncContextManager

from services.gateway.audio_input import (
    BLOCK_BYTES,
    AudioFormat,
    ContainerFormat,
    Decoder,
    EmptyAudioError,
    Encoding,
    FileFormat,
    PacketCodec,
    PacketFormat,
    RawFormat,
    check_channels,
)
from services.gateway.container_decoder import count_channels, open_container, open_packets
from services.gateway.header_decoder import open_either
from services.gateway.raw_decoder import open_raw

__all__ = [
    "BLOCK_BYTES",
    "AudioFormat",
    "ContainerFormat",
    "Decoder",
    "EmptyAudioError",
    "Encoding",
    "FileFormat",
    "PacketCodec",
    "PacketFormat",
    "RawFormat",
    "check_channels",
    "count_channels",
    "open_decoder",
]


def open_decoder(
    audio_format: AudioFormat,
    *,
    max_duration_s: float,
    max_spool_bytes: int = 1 << 30,
    may_have_header: bool = False,
) -> AbstractAsyncContextManager[Decoder]:
    """Start decoding. Leaving the context ends the decoder's thread, wherever it stands.

    Args:
        audio_format: What will be written.
        max_duration_s: The longest audio that is decoded.
        max_spool_bytes: The longest MP4 with its index at the end: it is kept in a temporary file
            until it is complete, because nothing can be decoded before.
        may_have_header: Whether what is announced as raw, or as packets, may be a container all
            the same.

    """
    if may_have_header and isinstance(audio_format, RawFormat | PacketFormat):
        return open_either(
            audio_format,
            lambda found: open_decoder(
                found, max_duration_s=max_duration_s, max_spool_bytes=max_spool_bytes
            ),
        )
    if isinstance(audio_format, RawFormat):
        return open_raw(audio_format, max_duration_s=max_duration_s)
    if isinstance(audio_format, PacketFormat):
        return open_packets(audio_format, max_duration_s=max_duration_s)
    return open_container(
        audio_format, max_duration_s=max_duration_s, max_spool_bytes=max_spool_bytes
    )
