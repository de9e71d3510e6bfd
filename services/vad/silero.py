"""Silero VAD on ONNX Runtime.

Source: Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector", v6.
"""

from pathlib import Path

import numpy as np

from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.onnx_session import ERRORS, open_session
from services.common.timeline import SAMPLE_RATE_HZ
from services.vad.detector import WINDOW_SAMPLES

_CONTEXT_SAMPLES = 64
"""The model sees the end of the window before."""
_STATE_SHAPE = (2, 128)
"""Layers and width of its recurrent state."""
_STATE_SIZE = _STATE_SHAPE[0] * _STATE_SHAPE[1]
_INPUTS = ["input", "state", "sr"]


class SileroDetector:
    """Detector with the Silero model. May be called from several threads at once.

    A stream remembers its recurrent state, (2, 128), and then the last 64 samples.
    """

    name = "silero"
    memory_size = _STATE_SIZE + _CONTEXT_SAMPLES

    def __init__(self, path: Path) -> None:
        """Load ``silero_vad.onnx``.

        Raises:
            DeviceError: It is no ONNX model, or another one.

        """
        try:
            # One core per run: the model is too small to share, and replicas use several at once.
            self._session = open_session(path, threads=1)
        except ERRORS as error:
            raise DeviceError(f"{path} cannot be loaded: {error}") from error
        inputs = [node.name for node in self._session.get_inputs()]
        if inputs != _INPUTS:
            raise DeviceError(f"{path} is not Silero VAD: its inputs are {inputs}")
        self._sample_rate = np.array(SAMPLE_RATE_HZ, np.int64)

    def classify(self, windows: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See ``Detector``."""
        num_streams = len(windows)
        state = memory[:, :_STATE_SIZE].reshape(num_streams, *_STATE_SHAPE)
        feed = {
            "input": np.concatenate([memory[:, _STATE_SIZE:], windows], axis=1),
            "state": np.ascontiguousarray(state.transpose(1, 0, 2)),
            "sr": self._sample_rate,
        }
        try:
            output, state = self._session.run(None, feed)
        except ERRORS as error:
            raise DeviceError(f"the model failed: {error}") from error
        if not (np.isfinite(output).all() and np.isfinite(state).all()):
            raise DeviceError("the model answered with no number")
        context = windows[:, WINDOW_SAMPLES - _CONTEXT_SAMPLES :]
        recurrent = state.transpose(1, 0, 2).reshape(num_streams, _STATE_SIZE)
        return output[:, 0], np.concatenate([recurrent, context], axis=1)
