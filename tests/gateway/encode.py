"""Audio files for tests, made from a real recording."""

import io
import tempfile
from pathlib import Path

import av
import numpy as np
from av import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from services.common.models import locate

Samples = NDArray[np.int16]


def speech() -> Samples:
    """Forty-four seconds of real speech, (n,) s16 at 16 kHz."""
    return offline((locate("speech") / "two_cities.wav").read_bytes())


def offline(file: bytes) -> Samples:
    """Decode a whole file at once, with FFmpeg's own choice of everything."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
    with av.open(io.BytesIO(file), "r") as container:
        blocks = [b for frame in container.decode(audio=0) for b in resampler.resample(frame)]
    blocks += resampler.resample(None)
    return np.concatenate([block.to_ndarray()[0] for block in blocks])


def resampled(samples: Samples, rate_hz: int, *, channels: int = 1) -> Samples:
    """16 kHz mono -> (n, channels) at another rate, the same in all channels."""
    if rate_hz != 16000:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        blocks = resampler.resample(_frame(samples[:, np.newaxis], 16000))
        blocks += resampler.resample(None)
        samples = np.concatenate([block.to_ndarray()[0] for block in blocks])
    return np.repeat(samples[:, np.newaxis], channels, axis=1)


def encoded(
    samples: Samples,
    container: str,
    codec: str,
    *,
    rate_hz: int = 48000,
    channels: int = 1,
    options: dict[str, str] | None = None,
) -> bytes:
    """16 kHz mono -> a file, the same in all channels."""
    pcm = resampled(samples, rate_hz, channels=channels)
    return packed(pcm, container, codec, rate_hz=rate_hz, options=options)


def packed(
    pcm: Samples,
    container: str,
    codec: str,
    *,
    rate_hz: int,
    options: dict[str, str] | None = None,
) -> bytes:
    """(n, channels) at a rate -> a file."""
    layout = "mono" if pcm.shape[1] == 1 else "stereo"
    # A real file: some muxers read back what they wrote.
    with (
        tempfile.NamedTemporaryFile() as out,
        av.open(out.name, mode="w", format=container, options=options or {}) as muxer,
    ):
        stream = muxer.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, AudioStream)
        for start in range(0, len(pcm), rate_hz // 10):
            frame = _frame(pcm[start : start + rate_hz // 10], rate_hz)
            frame.pts = start
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
        muxer.close()
        return Path(out.name).read_bytes()


def packets(
    samples: Samples, codec: str, *, rate_hz: int = 48000, channels: int = 1
) -> list[bytes]:
    """16 kHz mono -> packets without a container."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = rate_hz
    encoder.layout = "mono" if channels == 1 else "stereo"
    encoder.format = av.AudioFormat("s16")
    if codec == "libopencore_amrnb":
        encoder.bit_rate = 12_200
    encoder.open()
    pcm = resampled(samples, rate_hz, channels=channels)
    size = encoder.frame_size
    frames = [_frame(pcm[i : i + size], rate_hz) for i in range(0, len(pcm) - size + 1, size)]
    return [bytes(packet) for frame in [*frames, None] for packet in encoder.encode(frame)]


def _frame(pcm: Samples, rate_hz: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(
        np.ascontiguousarray(pcm).reshape(1, -1),
        format="s16",
        layout="mono" if pcm.shape[1] == 1 else "stereo",
    )
    frame.sample_rate = rate_hz
    return frame
