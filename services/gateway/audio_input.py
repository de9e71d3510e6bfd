"""What a client may send as audio, and what takes it apart."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from services.common.errors import InvalidRequestError

BLOCK_BYTES = 3200
"""The longest block a decoder yields: 100 ms."""

Encoding = Literal["linear16", "linear32", "float32", "mulaw", "alaw"]
SAMPLE_BYTES: dict[Encoding, int] = {
    "linear16": 2,
    "linear32": 4,
    "float32": 4,
    "mulaw": 1,
    "alaw": 1,
}


PacketCodec = Literal["opus", "speex", "g729", "amr-nb", "amr-wb"]
PACKET_RATES_HZ: dict[PacketCodec, tuple[int, ...]] = {
    "opus": (48000,),
    "speex": (8000, 16000, 32000),
    "g729": (8000,),
    "amr-nb": (8000,),
    "amr-wb": (16000,),
}
MAX_CHANNELS = 8


class EmptyAudioError(InvalidRequestError):
    """A container was announced and not one byte of it came."""


def check_channels(channels: int) -> None:
    """Refuse a number of channels that is not served.

    Raises:
        InvalidRequestError: It is not.

    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidRequestError(f"{channels} channels are not within 1 to {MAX_CHANNELS}")


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Samples without a header, little-endian, channels interleaved.

    Raises:
        InvalidRequestError: No decoder takes such samples.

    """

    encoding: Encoding
    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in get_args(Encoding):
            raise InvalidRequestError(
                f"encoding {self.encoding!r} is not one of {', '.join(get_args(Encoding))}"
            )
        if not 8000 <= self.sample_rate_hz <= 192_000:
            raise InvalidRequestError(
                f"a sample rate of {self.sample_rate_hz} Hz is not within 8000 to 192000"
            )
        check_channels(self.channels)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return SAMPLE_BYTES[self.encoding] * self.channels


@dataclass(frozen=True, slots=True)
class ContainerFormat:
    """A file or a stream that says itself what it is."""

    hint: str | None = None
    """What the client calls it: a MIME type, file name or format. The bytes decide; the hint only
    makes the search for the first frame of an MP3 or AAC that begins with junk go further."""
    apart: bool = False
    """Whether blocks hold the samples of all its channels, interleaved, and not their mean."""


@dataclass(frozen=True, slots=True)
class PacketFormat:
    """Packets of a codec without a container. Each ``write`` hands over one, or several whole.

    Raises:
        InvalidRequestError: The codec has no such rate.

    """

    codec: PacketCodec
    sample_rate_hz: int

    def __post_init__(self) -> None:
        if self.sample_rate_hz not in (rates := PACKET_RATES_HZ[self.codec]):
            known = " or ".join(str(rate) for rate in rates)
            raise InvalidRequestError(
                f"a sample rate of {self.sample_rate_hz} Hz is not one of {self.codec}: {known}"
            )


FileFormat = RawFormat | ContainerFormat
AudioFormat = FileFormat | PacketFormat


class Decoder(Protocol):
    """Takes one client's audio apart. One task writes, one other reads ``blocks``."""

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes, cut anywhere but in packets. Waits while the decoder is behind.

        After ``close`` or ``abandon``, or once ``blocks`` has failed, the bytes are dropped.
        """

    async def drained(self) -> None:
        """Return when ``blocks`` has yielded what can be said of the bytes so far, and is asked on.

        Likewise when it has ended, or is abandoned. To be awaited by the task that writes.
        """

    def close(self) -> None:
        """Nothing more will be written: ``blocks`` ends after what was."""

    def abandon(self) -> None:
        """Nobody reads ``blocks`` any more: whoever waits is let go."""

    def blocks(self) -> AsyncIterator[bytes]:
        """The samples, at most ``BLOCK_BYTES`` at a time. To be read once.

        What follows the last whole sample of the input is dropped.

        Raises:
            InvalidRequestError: The bytes are not audio, or nothing of it could be decoded.
            EmptyAudioError: A container without a byte.
            StreamTooLongError: The audio is longer than allowed; what came before was yielded,
                unless the header said so already.

        """
