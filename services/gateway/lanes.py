"""Raw samples with interleaved channels -> the samples of each channel."""

import numpy as np

from services.gateway.audio_input import RawFormat


class Splitter:
    """Parts audio that is cut anywhere."""

    def __init__(self, audio_format: RawFormat) -> None:
        self._channels = audio_format.channels
        self._frame_bytes = audio_format.frame_bytes
        self._rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """The next samples of each channel."""
        data = self._rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        frames = np.frombuffer(data[:whole], np.uint8).reshape(
            -1, self._channels, self._frame_bytes // self._channels
        )
        return [frames[:, channel].tobytes() for channel in range(self._channels)]
