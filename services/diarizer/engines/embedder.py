"""Tells how a voice sounds: CAM++, whose frames are made once and pooled for whoever spoke.

Source: Wang et al., "CAM++: a fast and efficient network for speaker verification using
context-aware masking", 2023; ``iic/speech_campplus_sv_zh_en_16k-common_advanced``.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.onnx_session import ERRORS, open_session
from services.diarizer.engines.campplus_graph import NUM_MELS, head_graph, trunk_graph
from services.diarizer.engines.features import HOP_SAMPLES, mel_features, num_features
from services.diarizer.engines.torch_archive import load_weights

FRAME_SAMPLES = 2 * HOP_SAMPLES
"""From one frame to the next."""
FIRST_FRAME_SAMPLE = 40
"""Where the first frame of a piece begins."""


def num_frames(num_samples: int) -> int:
    """How many frames so many samples give."""
    return -(-num_features(num_samples) // 2)


class Embedder:
    """The model. Thread-safe."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load ``campplus_cn_en_common.pt``.

        Raises:
            ModelError: It is another file.
            DeviceError: ONNX Runtime does not take it.

        """
        weights = load_weights(path)
        trunk, head = trunk_graph(weights), head_graph(weights)
        self.size = weights["xvector.dense.linear.weight"].shape[0]
        try:
            self._trunk = open_session(trunk, threads=threads)
            self._head = open_session(head, threads=threads)
        except ERRORS as error:
            raise DeviceError(f"ONNX Runtime does not take {path}: {error}") from error

    def frames(self, pieces: FloatArray) -> FloatArray:
        """Pieces of sound of equal length, at most two seconds, as frames.

        Args:
            pieces: (rows, num_samples) float32 in [-1, 1).

        Returns:
            (rows, frames, width) float32.

        Raises:
            DeviceError: The model failed.

        """
        features = np.stack([mel_features(piece, NUM_MELS) for piece in pieces])
        return self._run(self._trunk, "frames", "features", features)

    def embed(self, frames: FloatArray, masks: NDArray[np.bool_]) -> FloatArray:
        """How those sound who speak in some frames.

        Args:
            frames: (num_frames, width) float32.
            masks: (voices, num_frames), at least two of each.

        Returns:
            (voices, size) float32 of unit length.

        Raises:
            DeviceError: The model failed.

        """
        share = masks / masks.sum(axis=1, keepdims=True)
        share = share.astype(np.float32)
        mean = share @ frames
        num = masks.sum(axis=1, keepdims=True)
        variance = np.maximum(share @ np.square(frames) - np.square(mean), 0) * num / (num - 1)
        statistics = np.concatenate([mean, np.sqrt(variance)], axis=1, dtype=np.float32)
        found = self._run(self._head, "embedding", "statistics", statistics)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return found

    def _run(self, session: Any, output: str, name: str, value: FloatArray) -> FloatArray:
        found: FloatArray
        try:
            [found] = session.run([output], {name: value})
        except ERRORS as error:
            raise DeviceError(f"the model failed: {error}") from error
        if not np.isfinite(found).all():
            raise DeviceError("the model answered with no number")
        return found
