"""Reads WebM, Ogg, MP4, MP3, AAC, FLAC, WAV, AIFF, CAF, AMR and AU from a stream of bytes.

Blocking, incremental and without a thread of its own. FFmpeg gets the demuxer's name, never the
choice, and may open nothing but the bytes at hand.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.error import FFmpegError

from services.common.errors import InvalidRequestError
from services.gateway.audio_input import EmptyAudioError
from services.gateway.byte_source import ReadNext, Source
from services.gateway.mp4 import BoxSource, SpooledSource, index_comes_first
from services.gateway.resampler import Limits, blocks
from services.gateway.sniff import ID3_HEADER_BYTES, Found, id3_bytes, sniff
from services.gateway.wav import trim_wav

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet

_READ_BYTES = 4096
"""As much as FFmpeg reads at a time. With more it waits longer before the first sound."""
_SEARCH_BYTES = 1 << 13
"""How far into the input the first frame of an MP3 or AAC is looked for."""
_HINTED_SEARCH_BYTES = 1 << 17
"""How far, if the client says that there is one."""
_SPOOL_MEMORY_BYTES = 1 << 22
"""What a spooled MP4 may take of memory before it goes to disk."""

_ACCEPTED = "WAV, FLAC, Ogg, WebM, MP3, AAC, MP4/M4A, AIFF, CAF, AMR and AU"


def decode(
    read_next: ReadNext, limits: Limits, *, hint: str | None = None, apart: bool = False
) -> Iterator[bytes]:
    """Yield the samples of the first audio track, at most ``BLOCK_BYTES`` at a time.

    Input that ends early or is damaged in places yields what could be decoded. Channels are mixed,
    or interleaved if they are to stay ``apart``.

    Raises:
        InvalidRequestError: The input is not audio, or nothing of it could be decoded.
        EmptyAudioError: The input is empty.
        StreamTooLongError: The audio is longer than allowed.

    """
    with _opened(read_next, limits, hint) as container:
        yield from blocks(_frames(container), limits, apart=apart)


def channels_of(read_next: ReadNext, limits: Limits, *, hint: str | None = None) -> int:
    """How many channels the first audio track begins with.

    Raises:
        InvalidRequestError: The input is not audio, or nothing of it can be decoded.
        StreamTooLongError: It says itself that it is longer than allowed.

    """
    with _opened(read_next, limits, hint) as container:
        first = next(_frames(container), None)
        if first is None:
            raise InvalidRequestError("nothing of the input can be decoded")
        return first.layout.nb_channels


@contextmanager
def _opened(read_next: ReadNext, limits: Limits, hint: str | None) -> Iterator[InputContainer]:
    source = Source(read_next)
    found = _recognise(source, hint)
    source.skip(found.offset)
    # FFmpeg tells no length of a WAV that it cannot seek in.
    if found.demuxer == "wav":
        limits.check_claimed(trim_wav(source))
    with tempfile.SpooledTemporaryFile(_SPOOL_MEMORY_BYTES) as spool:
        if found.demuxer != "mov":
            file: Source | BoxSource | SpooledSource = source
        elif index_comes_first(source):
            file = BoxSource(source)
        else:
            file = SpooledSource(source, spool, max_bytes=limits.max_spool_bytes)
        with _open(file, found) as container:
            _check_track(container)
            if container.duration is not None:
                limits.check_claimed(container.duration / av.time_base)
            yield container


def _recognise(source: Source, hint: str | None) -> Found:
    if not source.fill(1):
        raise EmptyAudioError("the input is empty")
    while source.fill(ID3_HEADER_BYTES) and (length := _tag_bytes(source)):
        source.skip(length)
    framed = hint is not None and any(word in hint.lower() for word in ("mp3", "mpeg", "aac"))
    search_bytes = _HINTED_SEARCH_BYTES if framed else _SEARCH_BYTES
    wanted = 16
    while True:
        complete = not source.fill(wanted) or wanted >= search_bytes
        found = sniff(bytes(source.head[:search_bytes]), complete=complete)
        if isinstance(found, Found):
            return found
        if found == "unknown":
            raise InvalidRequestError(
                f"the input is not audio in a format that is accepted ({_ACCEPTED})"
            )
        wanted *= 2


def _tag_bytes(source: Source) -> int:
    return id3_bytes(bytes(source.head[:ID3_HEADER_BYTES]))


def _open(file: object, found: Found) -> InputContainer:
    try:
        return av.open(
            file,
            mode="r",
            format=found.demuxer,
            options={
                "probesize": str(_READ_BYTES),
                "analyzeduration": "0",
                "format_whitelist": found.demuxer,
                "protocol_whitelist": "none",
            },
            buffer_size=_READ_BYTES,
            metadata_errors="ignore",
            io_open=_refuse,
        )
    except FFmpegError as error:
        raise _undecodable(found) from error


def _undecodable(found: Found) -> InvalidRequestError:
    return InvalidRequestError(f"the input begins like {found.demuxer}, but cannot be decoded")


def _check_track(container: InputContainer) -> None:
    if not container.streams.audio:
        raise InvalidRequestError("the input has no audio track")
    if container.streams.audio[0].codec_context is None:
        raise InvalidRequestError("the input's audio is in a codec that is not supported")


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise InvalidRequestError("the input names other inputs, and none is opened")


def _frames(container: InputContainer) -> Iterator[AudioFrame]:
    """Decode the first track. Damaged packets are left out; an unreadable place is the end."""
    codec = container.streams.audio[0].codec_context
    for packet in _packets(container):
        try:
            frames = codec.decode(packet)
        except FFmpegError:
            continue
        yield from frames


def _packets(container: InputContainer) -> "Iterator[Packet[AudioStream] | None]":
    """The packets of the first track, and None, which asks the codec for what it still holds."""
    packets = container.demux(container.streams.audio[0])
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            packet = None
        if packet is None:
            yield None
            return
        # PyAV's own request to the codec at the end, or an empty packet, which would look like it.
        if packet.size:
            yield packet
