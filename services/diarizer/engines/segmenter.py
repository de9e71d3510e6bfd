"""Tells the people of a window apart, overlaps included: pyannote's segmentation model.

Source: Plaquet and Bredin, "Powerset multi-class cross entropy loss for neural speaker
diarization", 2023; ``pyannote/segmentation-3.0``.
"""

from pathlib import Path

import numpy as np

from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.onnx_session import ERRORS, open_session
from services.diarizer.engines.segmentation_graph import segmentation_graph
from services.diarizer.engines.torch_archive import load_weights

FRAME_SAMPLES = 270
"""From one frame to the next."""
FIRST_FRAME_SAMPLE = 360
"""Where the first frame of a window begins: what lies before is told by no frame."""
MIN_SAMPLES = 991
"""The shortest window that has a frame."""
NUM_PEOPLE = 3
"""People who are told apart in a window, at most; no more than two of them speak at once."""

_POWERSET = np.array(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float32
)
"""(classes, people) who speaks in each class."""


class Segmenter:
    """The model. Thread-safe."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load ``pytorch_model.bin`` of the model.

        Raises:
            ModelError: It is another file.
            DeviceError: ONNX Runtime does not take it.

        """
        weights = load_weights(path)
        if weights.get("classifier.bias", _POWERSET).shape[0] != len(_POWERSET):
            raise ModelError(f"{path} is no segmentation model for {NUM_PEOPLE} people")
        try:
            self._session = open_session(segmentation_graph(weights), threads=threads)
        except ERRORS as error:
            raise DeviceError(f"ONNX Runtime does not take {path}: {error}") from error

    def activity(self, windows: FloatArray) -> FloatArray:
        """Who speaks in windows of equal length.

        Args:
            windows: (rows, num_samples) float32 in [-1, 1), at least ``MIN_SAMPLES``.

        Returns:
            (rows, frames, NUM_PEOPLE) float32, probability that a person speaks.

        Raises:
            DeviceError: The model failed.

        """
        try:
            [scores] = self._session.run(["scores"], {"waveform": windows[:, None]})
        except ERRORS as error:
            raise DeviceError(f"the model failed: {error}") from error
        found: FloatArray = np.exp(scores) @ _POWERSET
        if not np.isfinite(found).all():
            raise DeviceError("the model answered with no number")
        return found
