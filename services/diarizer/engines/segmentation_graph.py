"""PyanNet, the network of pyannote's segmentation models, as a graph for ONNX Runtime.

Sources: Bredin, "pyannote.audio 2.1 speaker diarization pipeline", 2023, and Plaquet and Bredin,
"Powerset multi-class cross entropy loss for neural speaker diarization", 2023 (the network);
Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet", 2018 (its first layer).
"""

from collections.abc import Mapping

import numpy as np

from services.common.audio import FloatArray
from services.common.models import ModelError
from services.common.onnx_graph import Graph
from services.common.timeline import SAMPLE_RATE_HZ

_STRIDE = 10
_POOL = 3
_MIN_HZ = 50.0
"""Lowest frequency and narrowest band of a filter."""
_LAYERS = 4
_TORCH_TO_ONNX = (0, 3, 1, 2)
"""Gates of an LSTM: torch has input, forget, cell, output; ONNX has input, output, forget, cell."""


def segmentation_graph(weights: Mapping[str, FloatArray]) -> bytes:
    """Waveforms -> who speaks, as classes.

    ``waveform`` (rows, 1, samples) -> ``scores`` (rows, frames, classes), log probabilities.

    Raises:
        ModelError: The weights are not such a network's.

    """
    try:
        graph = _Graph(weights)
        x = graph.input("waveform", ["rows", 1, "samples"])
        x = graph.norm(x, "sincnet.wav_norm1d")
        filters = graph.constant("filters", _filters(weights))
        x = graph.op("Abs", [graph.op("Conv", [x, filters], strides=[_STRIDE])])
        for layer in range(3):
            if layer:
                x = graph.op("Conv", [x, *graph.weights(f"sincnet.conv1d.{layer}")])
            x = graph.op("MaxPool", [x], kernel_shape=[_POOL], strides=[_POOL])
            x = graph.leaky(graph.norm(x, f"sincnet.norm1d.{layer}"))
        x = graph.op("Transpose", [x], perm=[2, 0, 1])
        for layer in range(_LAYERS):
            x = graph.lstm(x, layer)
        x = graph.op("Transpose", [x], perm=[1, 0, 2])
        for layer in range(2):
            x = graph.leaky(graph.linear(x, f"linear.{layer}"))
        scores = graph.op("LogSoftmax", [graph.linear(x, "classifier")], axis=-1)
        graph.output("scores", scores)
        return graph.serialized("segmentation")
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the weights are not of a segmentation model: {error}") from error


class _Graph(Graph):
    def __init__(self, weights: Mapping[str, FloatArray]) -> None:
        super().__init__()
        self._weights = weights

    def weights(self, name: str) -> list[str]:
        return [
            self.constant(f"{name}.{part}", self._weights[f"{name}.{part}"])
            for part in ("weight", "bias")
        ]

    def norm(self, x: str, name: str) -> str:
        return self.op("InstanceNormalization", [x, *self.weights(name)], epsilon=1e-5)

    def leaky(self, x: str) -> str:
        return self.op("LeakyRelu", [x], alpha=0.01)

    def linear(self, x: str, name: str) -> str:
        turned = self.constant(f"{name}.turned", self._weights[f"{name}.weight"].T)
        bias = self.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self.op("Add", [self.op("MatMul", [x, turned]), bias])

    def lstm(self, x: str, layer: int) -> str:
        """(frames, rows, in) -> (frames, rows, both directions)."""
        ways = (f"l{layer}", f"l{layer}_reverse")

        def both(part: str) -> FloatArray:
            return np.stack([_reordered(self._weights[f"lstm.{part}_{way}"]) for way in ways])

        biases = np.concatenate([both("bias_ih"), both("bias_hh")], axis=1)
        size = both("weight_hh").shape[-1]
        inputs = [
            x,
            self.constant(f"lstm.{layer}.in", both("weight_ih")),
            self.constant(f"lstm.{layer}.again", both("weight_hh")),
            self.constant(f"lstm.{layer}.bias", biases),
        ]
        both_ways = self.op("LSTM", inputs, hidden_size=size, direction="bidirectional")
        rows_first = self.op("Transpose", [both_ways], perm=[0, 2, 1, 3])
        return self.op("Reshape", [rows_first, self.constant("join", np.array([0, 0, 2 * size]))])


def _reordered(gates: FloatArray) -> FloatArray:
    parts = np.split(gates, len(_TORCH_TO_ONNX))
    return np.concatenate([parts[gate] for gate in _TORCH_TO_ONNX])


def _filters(weights: Mapping[str, FloatArray]) -> FloatArray:
    """The band-pass filters that a learnt pair of frequencies stands for, in two phases.

    (filters, 1, taps): the cosines, then the sines.
    """
    name = "sincnet.conv1d.0.filterbank"
    low = _MIN_HZ + np.abs(weights[f"{name}.low_hz_"])
    high = np.clip(low + _MIN_HZ + np.abs(weights[f"{name}.band_hz_"]), _MIN_HZ, SAMPLE_RATE_HZ / 2)
    times, window = weights[f"{name}.n_"], weights[f"{name}.window_"]
    scale = 2 * window / times
    cosines = (np.sin(high @ times) - np.sin(low @ times)) * scale
    sines = (np.cos(low @ times) - np.cos(high @ times)) * scale
    band = high - low
    phases = [
        np.concatenate([cosines, 2 * band, cosines[:, ::-1]], axis=1),
        np.concatenate([sines, 0 * band, -sines[:, ::-1]], axis=1),
    ]
    return (np.concatenate(phases) / np.tile(2 * band, (2, 1)))[:, None].astype(np.float32)
