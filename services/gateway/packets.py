"""Packets of a codec, as they come one by one -> 16 kHz mono s16. Blocking, like ``container``."""

from collections.abc import Iterable, Iterator
from itertools import chain

from av import AudioCodecContext, AudioFrame, CodecContext, Packet
from av.error import FFmpegError

from services.common.errors import InvalidRequestError
from services.gateway.audio_input import EmptyAudioError, PacketCodec, PacketFormat
from services.gateway.byte_source import ReadNext
from services.gateway.resampler import Limits, blocks

_MAX_BYTES = 1 << 13
"""Of what comes at once. The longest packet of Opus has 7.7 kB, and these codecs make minutes of
audio of little more."""
_DECODERS: dict[PacketCodec, str] = {
    "opus": "opus",
    "speex": "speex",
    "g729": "g729",
    "amr-nb": "amrnb",
    "amr-wb": "amrwb",
}
"""FFmpeg's names."""


def decode(read_next: ReadNext, audio_format: PacketFormat, limits: Limits) -> Iterator[bytes]:
    """Yield the samples of the packets, at most ``BLOCK_BYTES`` at a time.

    Raises:
        InvalidRequestError: One of them cannot be decoded.
        EmptyAudioError: There is none.
        StreamTooLongError: The audio is longer than allowed.

    """
    if (first := read_next()) is None:
        raise EmptyAudioError("the input is empty")
    packets = chain([first], iter(read_next, None))
    yield from blocks(_frames(packets, audio_format), limits)


def _frames(packets: Iterable[bytes], audio_format: PacketFormat) -> Iterator[AudioFrame]:
    codec = CodecContext.create(_DECODERS[audio_format.codec], "r")
    assert isinstance(codec, AudioCodecContext)
    codec.sample_rate = audio_format.sample_rate_hz
    codec.layout = "mono"
    for number, packet in enumerate(packets):
        if len(packet) > _MAX_BYTES:
            raise _undecodable(number, audio_format)
        try:
            frames = codec.decode(Packet(packet))
        except FFmpegError as error:
            raise _undecodable(number, audio_format) from error
        yield from frames


def _undecodable(number: int, audio_format: PacketFormat) -> InvalidRequestError:
    return InvalidRequestError(
        f"message {number} of the audio is no packet of {audio_format.codec}"
    )
