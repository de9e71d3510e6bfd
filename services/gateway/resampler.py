"""Decoded audio of any rate and number of channels -> 16 kHz s16, no longer than is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from services.common.audio import BYTES_PER_SAMPLE
from services.common.errors import InvalidRequestError, StreamTooLongError
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.audio_input import BLOCK_BYTES

_RATES_HZ = range(4000, 768_001)
"""Rates that are resampled. From a lower one, a frame of a few bytes would become minutes."""
_MONO = AudioLayout("mono")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one input may cost."""

    max_duration_s: float
    max_spool_bytes: int

    @property
    def max_samples(self) -> int:
        """The longest audio, in samples of each channel."""
        return round(self.max_duration_s * SAMPLE_RATE_HZ)

    def check_claimed(self, duration_s: float | None) -> None:
        """Refuse what says itself that it is too long; most inputs say nothing."""
        if duration_s is not None and duration_s > self.max_duration_s:
            raise self.too_long()

    def too_long(self) -> StreamTooLongError:
        """What is raised about longer audio."""
        return StreamTooLongError(f"audio is limited to {self.max_duration_s:g} s")


def blocks(frames: Iterator[AudioFrame], limits: Limits, *, apart: bool = False) -> Iterator[bytes]:
    """Resample frames, and cut the samples into blocks of at most ``BLOCK_BYTES``.

    Args:
        frames: What was decoded. It may change its rate or channels on the way.
        limits: How long it may be.
        apart: Whether the channels that the first frame has are kept, interleaved; otherwise they
            are mixed to one.

    Raises:
        InvalidRequestError: There is not one sample, or they cannot be resampled.
        StreamTooLongError: There are more samples than are allowed; what came before was yielded.

    """
    heard = False
    if (first := next(frames, None)) is not None:
        layout = first.layout if apart else _MONO
        room = limits.max_samples * BYTES_PER_SAMPLE * layout.nb_channels
        for piece in _pcm(chain([first], frames), layout):
            heard = heard or bool(piece)
            for start in range(0, min(len(piece), room), BLOCK_BYTES):
                yield piece[start : min(start + BLOCK_BYTES, room)]
            room -= len(piece)
            if room < 0:
                raise limits.too_long()
    if not heard:
        raise InvalidRequestError("nothing of the input could be decoded: it is damaged or cut off")


def _pcm(frames: Iterator[AudioFrame], layout: AudioLayout) -> Iterator[bytes]:
    resampler, setup = _new_resampler(layout), None
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if setup not in {None, now}:
            yield _resample(resampler, None)
            resampler = _new_resampler(layout)
        if frame.sample_rate not in _RATES_HZ:
            raise InvalidRequestError(f"a sample rate of {frame.sample_rate} Hz is not supported")
        setup = now
        yield _resample(resampler, frame)
    yield _resample(resampler, None)


def _new_resampler(layout: AudioLayout) -> AudioResampler:
    return AudioResampler(format="s16", layout=layout, rate=SAMPLE_RATE_HZ)


def _resample(resampler: AudioResampler, frame: AudioFrame | None) -> bytes:
    if frame is not None:
        frame.pts = None
    try:
        resampled = resampler.resample(frame)
    except (FFmpegError, ValueError) as error:
        raise InvalidRequestError("the input's channels cannot be mixed") from error
    return b"".join(block.to_ndarray().tobytes() for block in resampled)
