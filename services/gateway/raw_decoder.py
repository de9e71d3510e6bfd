"""Raw samples of any rate, width and number of channels -> 16 kHz mono s16."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from av import AudioFrame, AudioResampler
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.common.errors import StreamTooLongError
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.audio_input import BLOCK_BYTES, Decoder, Encoding, RawFormat
from services.gateway.pipe import AbandonedError, Pipe

_PENDING_BYTES = 1 << 18
"""Input that may wait: 8 s at 16 kHz, so that a burst does not stop the client at once."""
_STEP_MS = 100
"""Audio converted at a time. It takes far less than a millisecond, so no thread is needed."""


@asynccontextmanager
async def open_raw(audio_format: RawFormat, *, max_duration_s: float) -> AsyncIterator[Decoder]:
    """See ``open_decoder``."""
    decoder = _RawDecoder(audio_format, max_duration_s)
    try:
        yield decoder
    finally:
        decoder.abandon()


class _RawDecoder:
    def __init__(self, audio_format: RawFormat, max_duration_s: float) -> None:
        self._pipe = Pipe(_PENDING_BYTES)
        self._convert = _converter(audio_format)
        self._max_samples = round(max_duration_s * SAMPLE_RATE_HZ)
        self._max_duration_s = max_duration_s
        self._frame_bytes = audio_format.frame_bytes
        self._step_bytes = self._frame_bytes * (audio_format.sample_rate_hz * _STEP_MS // 1000)

    async def write(self, data: bytes) -> None:
        try:
            await self._pipe.put(data)
        except AbandonedError:
            return

    async def drained(self) -> None:
        await self._pipe.starved()

    def close(self) -> None:
        self._pipe.end()

    def abandon(self) -> None:
        self._pipe.abandon()

    async def blocks(self) -> AsyncIterator[bytes]:
        given = 0
        async for pcm in self._converted():
            keep = min(len(pcm), (self._max_samples - given) * 2)
            for start in range(0, keep, BLOCK_BYTES):
                yield pcm[start : min(start + BLOCK_BYTES, keep)]
            given += keep // 2
            if keep < len(pcm):
                self.abandon()
                raise StreamTooLongError(f"audio is limited to {self._max_duration_s:g} s")

    async def _converted(self) -> AsyncIterator[bytes]:
        rest = b""
        while (data := await self._pipe.get()) is not None:
            data = rest + data
            whole = len(data) - len(data) % self._frame_bytes
            for start in range(0, whole, self._step_bytes):
                end = min(start + self._step_bytes, whole)
                yield self._convert(data[start:end])
                if end < whole:
                    # A large message must not keep the event loop to itself.
                    await asyncio.sleep(0)
            rest = data[whole:]
        yield self._convert(None)


Convert = Callable[[bytes | None], bytes]
"""Whole frames -> what can be said about them so far; None -> the rest."""


def _converter(audio_format: RawFormat) -> Convert:
    if audio_format == RawFormat("linear16", SAMPLE_RATE_HZ, 1):
        return lambda data: data or b""
    mono = _mixer(audio_format)
    if audio_format.sample_rate_hz == SAMPLE_RATE_HZ:
        return lambda data: _to_pcm(mono(data)) if data else b""
    resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)

    def resample(data: bytes | None) -> bytes:
        frame = None
        if data is not None:
            frame = AudioFrame.from_ndarray(mono(data)[np.newaxis], format="fltp", layout="mono")
            frame.sample_rate = audio_format.sample_rate_hz
        return b"".join(block.to_ndarray().tobytes() for block in resampler.resample(frame))

    return resample


def _mixer(audio_format: RawFormat) -> Callable[[bytes], FloatArray]:
    """Frames -> the mean of their channels, float32 in [-1, 1]."""
    dtype, to_float = _DTYPES[audio_format.encoding], _TO_FLOAT[audio_format.encoding]

    def mix(data: bytes) -> FloatArray:
        channels = to_float(np.frombuffer(data, dtype)).reshape(-1, audio_format.channels)
        mean: FloatArray = channels.mean(axis=1, dtype=np.float32)
        return mean

    return mix


def _to_pcm(samples: FloatArray) -> bytes:
    """Float32 -> s16, such that a sample that was s16 comes back as it was."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def _unit(samples: NDArray[Any]) -> FloatArray:
    """Integers as large as s16 -> float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(32768)


def _mulaw_table() -> FloatArray:
    """Byte -> sample. Source: ITU-T G.711, table 2."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << (code >> 4 & 7)) - 132
    return _unit(np.where(code & 128, -magnitude, magnitude))


def _alaw_table() -> FloatArray:
    """Byte -> sample. Source: ITU-T G.711, table 1."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    mantissa = ((code & 15).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, mantissa + 256 << np.maximum(exponent - 1, 0))
    return _unit(np.where(code & 128, magnitude, -magnitude))


_MULAW, _ALAW = _mulaw_table(), _alaw_table()

_DTYPES: dict[Encoding, np.dtype[Any]] = {
    "linear16": np.dtype("<i2"),
    "linear32": np.dtype("<i4"),
    "float32": np.dtype("<f4"),
    "mulaw": np.dtype(np.uint8),
    "alaw": np.dtype(np.uint8),
}
_TO_FLOAT: dict[Encoding, Callable[[NDArray[Any]], FloatArray]] = {
    "linear16": _unit,
    "linear32": lambda samples: (samples / 2.0**31).astype(np.float32),
    # A value that is no number would stay in the resampler for ever.
    "float32": lambda samples: np.clip(np.nan_to_num(samples), -1, 1),
    "mulaw": lambda samples: _MULAW[samples],
    "alaw": lambda samples: _ALAW[samples],
}
